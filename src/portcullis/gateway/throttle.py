"""Floods: a token bucket a client, and a sample of what is turned away (pure)."""

from dataclasses import dataclass

from portcullis.gateway.problems import ProblemError

_BURST_S = 2.0
_FULL_AGAIN_S = 10.0


@dataclass
class _Bucket:
    level: float
    filled_at: float


class Throttle:
    """Lets `rate_s` requests a second of each client pass, twice as many in a burst."""

    def __init__(self, rate_s: float) -> None:
        self._rate_s = rate_s
        self._buckets: dict[str, _Bucket] = {}
        self._tidied_at = 0.0

    def check(self, client: str, now: float) -> None:
        """Let one request pass at `now` (monotonic seconds); raises ProblemError `rate_limited`."""
        if not self._allows(client, now):
            raise ProblemError("rate_limited", "too many requests of this client")

    def _allows(self, client: str, now: float) -> bool:
        if now - self._tidied_at > _FULL_AGAIN_S:
            self._tidied_at = now
            full_since = now - _FULL_AGAIN_S
            self._buckets = {
                name: bucket
                for name, bucket in self._buckets.items()
                if bucket.filled_at > full_since
            }
        size = max(self._rate_s * _BURST_S, 1.0)
        bucket = self._buckets.setdefault(client, _Bucket(size, now))
        bucket.level = min(size, bucket.level + (now - bucket.filled_at) * self._rate_s)
        bucket.filled_at = now
        if bucket.level < 1:
            return False
        bucket.level -= 1
        return True


class Sampler:
    """Picks the first of each second, and says how many were passed over before it."""

    def __init__(self) -> None:
        self._second = -1
        self._passed_over = 0

    def pick(self, now: float) -> int | None:
        """None: pass this one over; else how many were since the last one picked."""
        if int(now) == self._second:
            self._passed_over += 1
            return None
        passed_over, self._passed_over, self._second = self._passed_over, 0, int(now)
        return passed_over
