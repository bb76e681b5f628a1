"""What several turns air, chosen at once. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from portcullis.cycler.arena import Arena, Emms, Piece
from portcullis.cycler.rings import Front, packets_before


class Part(NamedTuple):
    """Those of the front of a ring from `start` to `stop`."""

    ring: int
    front: Front
    start: int
    stop: int


class Turn(NamedTuple):
    """What goes out in one turn, and the credit of the classes afterwards."""

    parts: list[Part]
    credit: list[float]


class Plan:
    """EMMs of several rings in the order in which they go out, made at once.

    It is worth nothing once one of their fronts is looked at anew. Which parts of these have gone
    out is asked for after several turns: one of them costs little.

    Attributes:
        rings: those that have something due.
        first: packets of first airings that went before it.
    """

    def __init__(
        self, arena: Arena, rings: Iterable[int], turns: Sequence[Turn], until: float
    ) -> None:
        """Take what to air turn by turn.

        Args:
            arena: where their EMMs are.
            rings: those that have something due.
            turns: parts of their fronts, from where each stands.
            until: when another ring has something due, on the monotonic clock.
        """
        parts = [part for turn in turns for part in turn.parts]
        slots = np.concatenate([part.front.slots[part.start : part.stop] for part in parts])
        self.rings = list(rings)
        self.first = 0
        self._credits = [turn.credit for turn in turns]
        counts = [sum(part.stop - part.start for part in turn.parts) for turn in turns]
        self._stops = list(accumulate(counts))
        self._first_end = min(part.front.first_end for part in parts)
        self._until = until
        self._parts = list(reversed(parts))
        self._emms = Emms(arena, slots, packets_before(arena.costs(slots).cumsum()))
        self._ends = self._emms.ends
        self._at = 0
        self._turns: list[tuple[float, int]] = []  # not asked for yet: when, and how many went out

    @property
    def credit(self) -> list[float]:
        """The credit of the classes where it stands; what has begun of a turn counts as all."""
        return self._credits[bisect_left(self._stops, self._at)]

    def next(self, packets: int, now: float, wall: float) -> Piece | None:
        """What comes next and fits so many packets; None if it no longer holds, or is used up."""
        start, ends = self._at, self._ends
        end = ends[start] + packets
        if now >= self._until or wall >= self._first_end or end > ends[-1]:
            return None
        stop = self._at = bisect_right(ends, end, start) - 1
        self._turns.append((now, stop - start))
        return Piece(self._emms, start, stop)

    def aired(self) -> list[tuple[float, list[Part]]]:
        """The parts that went out since this was last asked, turn by turn, and when."""
        turns, self._turns = self._turns, []
        return [(now, self._cut(count)) for now, count in turns]

    def _cut(self, count: int) -> list[Part]:
        """Take so many EMMs off the parts that are left."""
        cut = []
        while count:
            part = self._parts.pop()
            if part.stop - part.start > count:
                self._parts.append(part._replace(start=part.start + count))
                part = part._replace(stop=part.start + count)
            count -= part.stop - part.start
            cut.append(part)
        return cut
