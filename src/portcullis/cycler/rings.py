"""The rings of a carousel: who is in which, in what order, due when. Pure.

A slot is in one ring or in none (ring 0). Taking a slot out of a ring, or
putting it into another, leaves a stale record behind: a record is live only
while the slot still has its tag, which is ticket and ring. Records hold
milliseconds from a base that moves up now and then.
"""

from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from portcullis.cycler.columns import Column
from portcullis.cycler.queues import Queue
from portcullis.cycler.records import SETTLED, WALKING, Records, Slots

NONE = 0
MAX_RINGS = 15
_RING_BITS = 4
_TICKETS = 1 << 28
_COUNT = np.arange(1 << 16, dtype=np.uint32) << np.uint32(_RING_BITS)
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
        self._tag = Column(np.uint32)  # ticket modulo 2^28, and ring
        self._base: float | None = None

    def reserve(self, slots: int) -> None:
        """Make room for slots below `slots`."""
        self._tag.reserve(slots)

    def ring_of(self, slot: int) -> int:
        """The ring a slot is in."""
        return int(self._tag.rows[slot]) & MAX_RINGS

    def record(self, slot: int) -> Records:
        """The record of a slot in a ring, to be read and changed in place."""
        tag = int(self._tag.rows[slot])
        queue = self._queues[tag & MAX_RINGS]
        return queue.record(queue.head + (((tag >> _RING_BITS) - queue.head) % _TICKETS))

    def push(self, ring: int, records: Records, due: float | NDArray[np.float64]) -> None:
        """Put slots that are in no ring behind the others of one; `due` must not fall."""
        if len(records):
            records["due"] = self._ms(due)
            ticket = self._queues[ring].push(records)
            self._tag.rows[records["slot"]] = _tags(ring, ticket, len(records))
            self.sizes[ring] += len(records)

    def unlink(self, slot: int) -> None:
        """Take a slot out of its ring, if it is in one."""
        ring = self.ring_of(slot)
        if ring != NONE:
            self._tag.rows[slot] = NONE
            self.sizes[ring] -= 1

    def move(self, slot: int, to: int) -> None:
        """Have another slot take the place of one in its ring, if it is in one."""
        if self.ring_of(slot) != NONE:
            self.record(slot)["slot"] = to
            self._tag.rows[to], self._tag.rows[slot] = self._tag.rows[slot], NONE

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
        slots = len(self._tag.rows)
        self._tag = Column(np.uint32)
        self._tag.reserve(slots)

    def head_due(self, ring: int) -> float:
        """When the first of a ring is due; inf when it is empty."""
        queue = self._queues[ring]
        while self.sizes[ring]:
            head = queue.record(queue.head)
            expected = queue.head % _TICKETS << _RING_BITS | ring
            if self._tag.rows[head["slot"][0]] == expected:
                return float(self.moment(int(head["due"][0])))
            queue.drop(1)
        return inf

    def due(
        self, ring: int, limit: int, now: float, wall: float, costs_of: Callable[[Slots], Slots]
    ) -> Due:
        """What is due of a ring and fits `limit` packets."""
        queue, now_ms = self._queues[ring], self._ms(now)
        pieces: list[tuple[Records, NDArray[np.int64], NDArray[np.int64]]] = []
        expired: list[int] = []
        scanned = spent = 0
        is_blocked = False
        while self.sizes[ring] and spent < limit and not is_blocked:
            piece = queue.peek(scanned, limit - spent + _LOOK_AHEAD)
            piece = piece[: int(piece["due"].searchsorted(now_ms, "right"))]
            if not len(piece):
                break
            live = self._is_live(ring, piece, queue.head + scanned)
            over = live & (piece["ends"] <= wall)
            if over.any():
                expired += piece["slot"][over].tolist()
                live &= ~over
            cost = (costs_of(piece["slot"]) * live).cumsum() + spent
            fit = int(cost.searchsorted(limit, "right"))
            is_blocked = fit < len(piece) and int(cost[fit - 1] if fit else spent) < limit
            here = live[:fit].nonzero()[0]
            pieces.append((piece[here], cost[here], here + (scanned + 1)))
            scanned += fit
            spent = int(cost[fit - 1]) if fit else spent
        if len(pieces) == 1:
            return Due(*pieces[0], scanned, expired, is_blocked)
        none = np.empty(0, np.int64)
        pieces.append((queue.peek(0, 0), none, none))
        records, costs, ends = (np.concatenate(column) for column in zip(*pieces, strict=True))
        return Due(records, costs, ends, scanned, expired, is_blocked)

    def pop(self, ring: int, due: Due, count: int) -> None:
        """Take the first `count` of what is due out of their ring."""
        scanned = int(due.ends[count - 1]) if count < len(due.ends) else due.scanned
        self._queues[ring].drop(scanned)
        self._tag.rows[due.records["slot"][:count]] = NONE
        self.sizes[ring] -= count

    def tidy(self, now: float) -> None:
        """Rid queues of stale records that are too many, and bring the base up."""
        for ring, queue in enumerate(self._queues):
            if len(queue) > 2 * self.sizes[ring] + _SLACK:
                records = self.live(ring)
                queue.clear()
                tags = _tags(ring, queue.push(records), len(records))
                self._tag.rows[records["slot"]] = tags
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
        if isinstance(moment, float):
            return max(round((moment - self._base) * 1000), 0)
        return np.maximum(np.rint((moment - self._base) * 1000), 0)

    def _is_live(self, ring: int, records: Records, first_ticket: int) -> NDArray[np.bool_]:
        """Which records are still those of their slots."""
        is_live: NDArray[np.bool_] = self._tag.rows[records["slot"]] == _tags(
            ring, first_ticket, len(records)
        )
        return is_live


def _tags(ring: int, first_ticket: int, count: int) -> NDArray[np.uint32]:
    """The tags of records with successive tickets."""
    count_up = _COUNT[:count]
    if count > len(_COUNT):
        count_up = np.arange(count, dtype=np.uint32) << np.uint32(_RING_BITS)
    # A ticket beyond 2^28 overflows, and so begins anew.
    return count_up + np.uint32(first_ticket % _TICKETS << _RING_BITS | ring)
