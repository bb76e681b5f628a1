"""One leader: takes and renews the lease, and knows when it can no longer be sure of it."""

import time
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Engine

from portcullis.store.leases import fenced, release_lease, take_lease

LEASE = "scheduler"
TTL_S = 10.0
"""Another leads within this time of a leader's death."""
RENEW_S = 3.0


class Leadership:
    """Holds, or waits for, the lease. `clock`: seconds that never go back."""

    def __init__(
        self, engine: Engine, holder: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self.holder = holder
        self._clock = clock
        self._sure_until = float("-inf")

    @property
    def is_held(self) -> bool:
        """Whether the lease is ours beyond doubt; once it has run out here, no."""
        return self._clock() < self._sure_until

    def fenced(self) -> Engine:
        """The database for the jobs: commits nothing once another may lead, see `leases.fenced`."""
        return fenced(self._engine, LEASE, self.holder)

    def renew(self) -> float:
        """Ask for the lease, or for more of it; returns the seconds until it is to ask again."""
        # Counted from before the question: the database's lease never ends earlier than ours.
        asked_at = self._clock()
        held = take_lease(self._engine, LEASE, self.holder, timedelta(seconds=TTL_S))
        if held is not None and held.holder == self.holder:
            self._sure_until = asked_at + TTL_S
            return RENEW_S
        self._sure_until = float("-inf")
        return RENEW_S if held is None else min(RENEW_S, held.left_s)

    def release(self) -> None:
        """Let another lead at once."""
        if self.is_held:
            self._sure_until = float("-inf")
            release_lease(self._engine, LEASE, self.holder)
