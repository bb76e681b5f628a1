"""The rings of a carousel: who is in which, in what order, due when. Pure.

A slot is in one ring or in none (ring 0). Taking a slot out of a ring, or
putting it into another, leaves a stale record behind: a record is live only
while the slot still has its ring and ticket. Records hold milliseconds from a
base that moves up now and then.
"""

from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from portcullis.cycler.columns import Column
from portcullis.cycler.queues import Queue, tickets
from portcullis.cycler.records import SETTLED, WALKING, Records, Slots

NONE = 0
_BEHIND_MS = 1 << 30  # how far the base lies behind: twelve days
_REBASE_MS = 1 << 31
_SLACK = 4096  # stale records a queue may hold beyond as many as live ones
_LOOK_AHEAD = 64


class Due(NamedTuple):
    """The head of a ring: what is due and fits.

    Attributes:
        records: live ones, in order.
        cost: packets up to and with each of them.
        ends: records of the queue, stale ones too, up to and with each of them.
        scanned: records of the queue that were looked at.
        expired: slots met whose end has come.
        is_blocked: the next one is due, but costs more than is left.
    """

    records: Records
    cost: NDArray[np.int64]
    ends: NDArray[np.int64]
    scanned: int
    expired: list[int]
    is_blocked: bool

    @property
    def packets(self) -> int:
        """Packets of all."""
        return int(self.cost[-1]) if len(self.cost) else 0

    def fit(self, packets: int) -> int:
        """How many of them fit so many packets."""
        return int(np.searchsorted(self.cost, packets, "right"))


class Rings:
    """Rings 1 to `last`, of which the last holds settled records.

    Attributes:
        last: the number of the last ring.
        sizes: by ring: how many slots are in it.
    """

    def __init__(self, last: int) -> None:
        self.last = last
        self.sizes = [0] * (last + 1)
        self._queues = [Queue(WALKING) for _ in range(last)] + [Queue(SETTLED)]
        self._ring = Column(np.uint8)
        self._ticket = Column(np.uint32)
        self._base: float | None = None

    def reserve(self, slots: int) -> None:
        """Make room for slots below `slots`."""
        self._ring.reserve(slots)
        self._ticket.reserve(slots)

    def ring_of(self, slot: int) -> int:
        """The ring a slot is in."""
        return int(self._ring.rows[slot])

    def record(self, slot: int) -> Records:
        """The record of a slot in a ring, to be read and changed in place."""
        return self._queues[self.ring_of(slot)].record(int(self._ticket.rows[slot]))

    def push(self, ring: int, records: Records, due: NDArray[np.float64]) -> None:
        """Put slots that are in no ring behind the others of one; `due` must not fall."""
        if len(records):
            records["due"] = self._ms(due)
            slots = records["slot"]
            self._ticket.rows[slots] = self._queues[ring].push(records)
            self._ring.rows[slots] = ring
            self.sizes[ring] += len(records)

    def unlink(self, slot: int) -> None:
        """Take a slot out of its ring, if it is in one."""
        ring = self.ring_of(slot)
        if ring != NONE:
            self._ring.rows[slot] = NONE
            self.sizes[ring] -= 1

    def live(self, ring: int) -> Records:
        """A copy of the live records of a ring, in order."""
        queue = self._queues[ring]
        records = queue.everything()
        return records[self._is_live(ring, records, queue.head)]

    def clear(self) -> None:
        """Empty all rings."""
        for ring, queue in enumerate(self._queues):
            queue.clear()
            self.sizes[ring] = 0
        self._ring.rows[:] = NONE

    def head_due(self, ring: int) -> float:
        """When the first of a ring is due; inf when it is empty."""
        queue = self._queues[ring]
        while self.sizes[ring]:
            head = queue.peek(0, _LOOK_AHEAD)
            live = np.flatnonzero(self._is_live(ring, head, queue.head))
            if len(live):
                queue.drop(int(live[0]))
                return float(self.moment(head["due"][live[0]]))
            queue.drop(len(head))
        return inf

    def due(
        self, ring: int, limit: int, now: float, wall: float, costs_of: Callable[[Slots], Slots]
    ) -> Due:
        """What is due of a ring and fits `limit` packets."""
        queue, now_ms = self._queues[ring], self._ms(now)
        records = [queue.peek(0, 0)]
        costs, ends = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        expired: list[int] = []
        scanned = spent = 0
        is_blocked = False
        while spent < limit and not is_blocked:
            piece = queue.peek(scanned, limit - spent + _LOOK_AHEAD)
            piece = piece[: int(np.searchsorted(piece["due"], now_ms, "right"))]
            if not len(piece):
                break
            live = self._is_live(ring, piece, queue.head + scanned)
            over = live & (piece["ends"] <= wall)
            if over.any():
                expired += piece["slot"][over].tolist()
                live &= ~over
            cost = spent + np.cumsum(np.where(live, costs_of(piece["slot"]), 0))
            fit = int(np.searchsorted(cost, limit, "right"))
            is_blocked = fit < len(piece) and spent < limit
            here = np.flatnonzero(live[:fit])
            records.append(piece[here])
            costs.append(cost[here])
            ends.append(scanned + here + 1)
            scanned += fit
            spent = int(cost[fit - 1]) if fit else spent
        is_blocked = is_blocked and spent < limit
        columns = np.concatenate(records), np.concatenate(costs), np.concatenate(ends)
        return Due(*columns, scanned, expired, is_blocked)

    def pop(self, ring: int, due: Due, count: int) -> None:
        """Take the first `count` of what is due out of their ring."""
        scanned = int(due.ends[count - 1]) if count < len(due.ends) else due.scanned
        self._queues[ring].drop(scanned)
        self._ring.rows[due.records["slot"][:count]] = NONE
        self.sizes[ring] -= count

    def tidy(self, now: float) -> None:
        """Rid queues of stale records that are too many, and bring the base up."""
        for ring, queue in enumerate(self._queues):
            if len(queue) > 2 * self.sizes[ring] + _SLACK:
                records = self.live(ring)
                queue.clear()
                self._ticket.rows[records["slot"]] = queue.push(records)
        if (now_ms := int(self._ms(now))) > _REBASE_MS:
            for queue in self._queues:
                queue.lower("due", now_ms - _BEHIND_MS)
            self._base = now - _BEHIND_MS / 1000

    def moment(self, milliseconds: Any) -> Any:  # noqa: ANN401 (one moment or many)
        """When that is on the monotonic clock."""
        assert self._base is not None  # noqa: S101 (whoever has milliseconds has had a base)
        return milliseconds / 1000 + self._base

    def _ms(self, moment: Any) -> Any:  # noqa: ANN401 (one moment or many)
        """Whole milliseconds from the base on."""
        if self._base is None:
            self._base = float(np.min(moment)) - _BEHIND_MS / 1000
        return np.maximum(np.rint((moment - self._base) * 1000), 0)

    def _is_live(self, ring: int, records: Records, first_ticket: int) -> NDArray[np.bool_]:
        """Which records are still those of their slots."""
        slots = records["slot"]
        is_here: NDArray[np.bool_] = self._ring.rows[slots] == ring
        is_here &= self._ticket.rows[slots] == tickets(first_ticket, len(records))
        return is_here
