"""Metrics, each declared once: what Prometheus reads, and what docs/metrics.md lists.

A name follows Prometheus's conventions: base units (seconds, bytes), counters
end in `_total`. `counter`, `gauge` and `histogram` make metrics that a room
sets as it works; `counter_family` and `gauge_family` make those that a room's
collector looks up when it is asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

# A series more per counter, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client has it untyped


@dataclass(frozen=True)
class Declared:
    """One metric; `kind` as Prometheus names it."""

    name: str
    kind: str
    meaning: str
    labels: Sequence[str]


DECLARED: list[Declared] = []
"""Every metric of the rooms whose metrics have been imported."""


def counter(name: str, meaning: str, *labels: str) -> Counter:
    """A count that only grows."""
    DECLARED.append(Declared(name, "counter", meaning, labels))
    return Counter(name, meaning, labels)


def gauge(name: str, meaning: str, *labels: str) -> Gauge:
    """A value that goes up and down."""
    DECLARED.append(Declared(name, "gauge", meaning, labels))
    return Gauge(name, meaning, labels)


def histogram(name: str, meaning: str, *labels: str, buckets: Sequence[float]) -> Histogram:
    """A distribution over `buckets` (upper bounds)."""
    DECLARED.append(Declared(name, "histogram", meaning, labels))
    return Histogram(name, meaning, labels, buckets=buckets)


def counter_family(name: str, meaning: str, *labels: str) -> Callable[[], CounterMetricFamily]:
    """A counter for a collector: each call gives the family anew, without samples."""
    DECLARED.append(Declared(name, "counter", meaning, labels))
    return lambda: CounterMetricFamily(name, meaning, labels=labels)


def gauge_family(name: str, meaning: str, *labels: str) -> Callable[[], GaugeMetricFamily]:
    """A gauge for a collector: each call gives the family anew, without samples."""
    DECLARED.append(Declared(name, "gauge", meaning, labels))
    return lambda: GaugeMetricFamily(name, meaning, labels=labels)


LOG_MESSAGES = counter("portcullis_log_messages_total", "Lines logged, by level", "level")
FAILING = gauge("portcullis_check_failing", "1 where the check fails: /readyz answers 503", "check")
DEGRADED = gauge(
    "portcullis_check_degraded",
    "1 where something is to be put right though work goes on",
    "check",
)
BUILD = gauge("portcullis_build_info", "1; its label says which release runs", "version")
CERTIFICATE_EXPIRES = gauge(
    "portcullis_tls_certificate_expires_timestamp_seconds",
    "When a link's certificate ends, or what issued it, or the last of the CAs it believes",
    "table",
)
