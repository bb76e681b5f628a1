"""What several turns air, chosen at once. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from portcullis.cycler.arena import Arena, Emms, Piece
from portcullis.cycler.rings import Front, packets_before


class Part(NamedTuple):
    """Those of the front of a ring from `start` to `stop`."""

    ring: int
    front: Front
    start: int
    stop: int


class Plan:
    """EMMs of several rings, mixed evenly, in the order in which they go out; made at once.

    It is worth nothing once one of their fronts is looked at anew. Which parts of these have gone
    out is asked for after several turns: one of them costs little.

    Attributes:
        first: packets of first airings that went before it.
    """

    def __init__(self, arena: Arena, parts: Sequence[Part], until: float) -> None:
        """Take what to air.

        Args:
            arena: where their EMMs are.
            parts: of the fronts of the rings that have something due, from where each stands.
            until: when another ring has something due, on the monotonic clock.
        """
        slots, self._which = _mixed(parts)
        self.first = 0
        self._parts = parts
        self._begins = [part.start for part in parts]  # of what has not been asked for yet
        self._first_end = min(part.front.first_end for part in parts)
        self._until = until
        self._emms = Emms(arena, slots, packets_before(arena.costs(slots).cumsum()))
        self._ends = self._emms.ends
        self._at = 0
        self._turns: list[tuple[float, int, int]] = []  # not asked for yet: when, from where, to

    @property
    def packets(self) -> int:
        """How many have gone out."""
        return self._ends[self._at]

    @property
    def served(self) -> dict[int, int]:
        """By ring that has something due: how many packets of it have gone out, and been asked."""
        parts = zip(self._parts, self._begins, strict=True)
        return {part.ring: part.front.packets(part.start, begin) for part, begin in parts}

    def next(self, packets: int, now: float, wall: float) -> Piece | None:
        """What comes next and fits so many packets; None if it no longer holds, or is used up."""
        start, ends = self._at, self._ends
        end = ends[start] + packets
        if now >= self._until or wall >= self._first_end or end > ends[-1]:
            return None
        stop = self._at = bisect_right(ends, end, start) - 1
        self._turns.append((now, start, stop))
        return Piece(self._emms, start, stop)

    def aired(self) -> list[tuple[float, list[Part]]]:
        """The parts that went out since this was last asked, turn by turn, and when."""
        turns, self._turns = self._turns, []
        if not turns:
            return []
        counts = np.array([stop - start for _, start, stop in turns])
        of_turn = np.arange(len(turns)).repeat(counts) * len(self._parts)
        of_part = self._which[turns[0][1] : turns[-1][2]]
        by_turn = np.bincount(of_turn + of_part, minlength=len(turns) * len(self._parts))
        rows = by_turn.reshape(len(turns), len(self._parts)).tolist()
        return [(now, self._cut(row)) for (now, _, _), row in zip(turns, rows, strict=True)]

    def _cut(self, counts: Sequence[int]) -> list[Part]:
        """Take so many EMMs off each part."""
        cut = []
        for number, count in enumerate(counts):
            if count:
                ring, front, _, _ = self._parts[number]
                begin = self._begins[number]
                self._begins[number] = begin + count
                cut.append(Part(ring, front, begin, begin + count))
        return cut


def _mixed(parts: Sequence[Part]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The slots of parts, those of each spread evenly over all; and of which part each is."""
    slots = np.concatenate([part.front.slots[part.start : part.stop] for part in parts])
    counts = [part.stop - part.start for part in parts]
    which = np.arange(len(parts), dtype=np.uint8).repeat(counts)
    if len(parts) > 1:
        places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
        order = places.argsort(kind="stable")
        slots, which = slots[order], which[order]
    return slots, which
