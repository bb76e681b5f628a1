"""How many full cycles a stream has aired, over the lives of all processes that aired it. Pure."""

from math import floor
from typing import NamedTuple

_ALMOST = 0.999


class Cycle(NamedTuple):
    """Where the cycle of a carousel stands.

    Attributes:
        seconds: how long it takes at present, as far as is known, until every EMM has been aired.
        all_aired_since: the airing of the EMM that was aired longest ago, on the caller's clock.
    """

    seconds: float
    all_aired_since: float


class CycleCounter:
    """A cycle is over when every EMM has been aired since it began.

    Counted by what was aired, not by what was to be: a process that has just taken over does not
    know yet by how much the cycle is stretched. A cycle that is cut short, by silence or by another
    holder, is begun anew.

    Attributes:
        total: cycles that are over, and about how much of the one under way; kept with the lease,
            so that the next holder goes on from there. It falls at a take-over alone, to the whole.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._over = 0
        self._began: float | None = None

    def take_over(self, total: float) -> None:
        """Go on from another's total; what it had begun is begun anew."""
        self._over = max(self._over, floor(total))
        self.total = float(max(self._over, floor(self.total)))
        self._began = None

    def airing(self, now: float, cycle: Cycle) -> None:
        """Note that the stream is on air; `now`: seconds of a clock that never goes back."""
        if self._began is None:
            self._began = now
        elif cycle.all_aired_since >= self._began:
            self._over += 1
            self._began = now
        part = min((now - self._began) / cycle.seconds, _ALMOST)
        self.total = max(self.total, self._over + part)

    def silent(self) -> None:
        """Nothing is aired from now on, and what was sent last may not have come through."""
        self._began = None
