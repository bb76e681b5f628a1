"""What Prometheus reads of the encryptor."""

from collections.abc import Callable, Iterator

from prometheus_client import Counter, Histogram, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

SEALED = Counter("portcullis_encryptor_sealed", "EMMs (states, messages, withdrawals) sealed")
REFUSED = Counter("portcullis_encryptor_refused", "Items refused, by code", ["code"])
REJECTED = Counter("portcullis_encryptor_rejected_calls", "Calls refused whole", ["reason"])
SECONDS = Histogram(
    "portcullis_encryptor_seconds",
    "Work on one call",
    ["call"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
)


class CacheMetrics(Collector):
    """Hits and misses of the cache of derived KEKs, looked up when asked."""

    def __init__(self, counts: Callable[[], tuple[int, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Return both counters."""
        family = CounterMetricFamily(
            "portcullis_encryptor_kek_cache",
            "Device keys looked up in the cache",
            labels=["result"],
        )
        for result, count in zip(("hit", "miss"), self._counts(), strict=True):
            family.add_metric([result], count)
        yield family
