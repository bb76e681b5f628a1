"""What Prometheus reads of the encryptor."""

from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector

from portcullis.runtime.metrics import counter, counter_family, histogram

SEALED = counter("portcullis_encryptor_sealed_total", "EMMs (states, messages, withdrawals) sealed")
REFUSED = counter("portcullis_encryptor_refused_total", "Items refused, by code", "code")
REJECTED = counter("portcullis_encryptor_rejected_calls_total", "Calls refused whole", "reason")
SECONDS = histogram(
    "portcullis_encryptor_call_seconds",
    "Work on one call, which carries up to hundreds of EMMs",
    "call",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
)
_KEK_CACHE = counter_family(
    "portcullis_encryptor_kek_cache_total", "Device keys looked up in the cache", "result"
)


class CacheMetrics(Collector):
    """Hits and misses of the cache of derived KEKs, looked up when asked."""

    def __init__(self, counts: Callable[[], tuple[int, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Return both counters."""
        family = _KEK_CACHE()
        for result, count in zip(("hit", "miss"), self._counts(), strict=True):
            family.add_metric([result], count)
        yield family
