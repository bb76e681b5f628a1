"""Floods: a token bucket a client, and a sample of what is turned away (pure)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from portcullis.gateway.permits import EVERYBODY_ELSE
from portcullis.gateway.problems import ProblemError

_BURST_S = 2.0
_TIDY_S = 10.0
_SHUT_OUT_S = 3600


@dataclass
class _Bucket:
    level: float
    filled_at: float


class Throttle:
    """Lets `rate_s` requests a second of each client pass, twice as many in a burst.

    rates: other rates for single clients; 0 lets nothing pass.
    """

    def __init__(self, rate_s: float, rates: Mapping[str, float] | None = None) -> None:
        self._rate_s = rate_s
        self._rates = rates or {}
        self._buckets: dict[str, _Bucket] = {}
        self._tidied_at = 0.0

    def check(self, client: str, now: float, cost: int = 1) -> None:
        """Let what costs so many requests pass at `now` (monotonic seconds).

        It passes where one request would; the rest is a debt that has to be waited out. Raises
        ProblemError `rate_limited` that says when to come again.
        """
        if now - self._tidied_at > _TIDY_S:
            self._tidied_at = now
            for name, bucket in list(self._buckets.items()):
                self._fill(name, bucket, now)
                if bucket.level == self._size(name):
                    del self._buckets[name]
        bucket = self._buckets.setdefault(client, _Bucket(self._size(client), now))
        self._fill(client, bucket, now)
        if cost > 0 and bucket.level < 1:
            rate_s = self._rate_of(client)
            wait_s = _SHUT_OUT_S if rate_s == 0 else math.ceil((1 - bucket.level) / rate_s)
            raise ProblemError(
                "rate_limited",
                "too many requests of this client",
                headers={"Retry-After": str(wait_s)},
            )
        bucket.level -= max(cost, 0)

    def _rate_of(self, client: str) -> float:
        return self._rates.get(client, self._rates.get(EVERYBODY_ELSE, self._rate_s))

    def _size(self, client: str) -> float:
        rate_s = self._rate_of(client)
        return max(rate_s * _BURST_S, 1.0) if rate_s else 0.0

    def _fill(self, client: str, bucket: _Bucket, now: float) -> None:
        gained = (now - bucket.filled_at) * self._rate_of(client)
        bucket.level = min(self._size(client), bucket.level + gained)
        bucket.filled_at = now


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
