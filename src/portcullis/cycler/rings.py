"""The rings of a carousel: who is in which, in what order, due when. Pure.

A slot is in one ring or in none (ring 0). Taking a slot out of a ring, or
putting it into another, leaves a stale record behind: a record is live only
while the slot still has its tag, which is ticket and ring. Records hold
milliseconds from a base that moves up now and then.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from portcullis.cycler.arena import Emms
from portcullis.cycler.columns import Column
from portcullis.cycler.queues import Queue
from portcullis.cycler.records import SETTLED, WALKING, Records, Slots, chosen, joined

NONE = 0
NO_END = 0xFFFFFFFF
MAX_RINGS = 15
_RING_BITS = 4
_TICKETS = 1 << 28
_COUNT = np.arange(1 << 16, dtype=np.uint32) << np.uint32(_RING_BITS)
_BEHIND_MS = 1 << 30  # how far the base lies behind: twelve days
_REBASE_MS = 1 << 31
_SLACK = 4096  # stale records a queue may hold beyond as many as live ones
_LOOK_AHEAD = 64
_ALL = slice(None)
_NO_PLACES = np.empty(0, np.int64)


class Front:
    """The next EMMs of a ring, looked at once and aired over several turns.

    Attributes:
        records: live ones, in order.
        slots: of the records.
        at: how many of them have been aired; from `popped` on they are still in the ring.
        end: ticket behind the last record that was looked at.
        tickets: of the records.
        costs: packets before each of them, and of all.
        first_end: when the first of their ends comes, Unix seconds.
        emms: them as they go out, once they do.
        may_tell: whether the first airing of one may be still to be told.
    """

    def __init__(self, found: "_Found", end: int, first_end: int) -> None:
        """Take what was found, the ticket behind it, and when the first of it ends."""
        self.records, self.slots, costs, self.tickets = found
        self.at = self.popped = 0
        self.end = end
        self.first_end = first_end
        self.emms: Emms | None = None
        records = found.records
        self.may_tell = records.dtype == SETTLED or not records["told"].all()
        self.costs = packets_before(costs)
        self._due = records["due"].astype(np.int64)

    @property
    def left(self) -> int:
        """How many are still to be aired."""
        return len(self.records) - self.at

    @property
    def packets_left(self) -> int:
        """Packets of those that are still to be aired."""
        return self.costs[-1] - self.costs[self.at]

    @property
    def next_due(self) -> int:
        """When the next of them is due; there is one."""
        return int(self._due[self.at])

    def due_by(self, moment: int) -> int:
        """Up to which of them all are due by then, at the earliest `at`."""
        return max(int(self._due.searchsorted(moment, "right")), self.at)

    def due(self, start: int, due: int, packets: int) -> "Due":
        """What from `start` on is due, which is up to `due`, and fits so many packets."""
        stop = self.fit(start, packets, due)
        spent = self.packets(start, stop)
        return Due(self, start, stop, spent, stop < due and spent < packets)

    def fit(self, start: int, packets: int, stop: int) -> int:
        """Up to which of those from `start` to `stop` so many packets suffice."""
        if isinstance(self.costs, range):  # of one packet each
            return min(start + packets, stop)
        return bisect_right(self.costs, self.costs[start] + packets, start, stop + 1) - 1

    def packets(self, start: int, stop: int) -> int:
        """Packets of those from `start` to `stop`."""
        return self.costs[stop] - self.costs[start]


class _Found(NamedTuple):
    """Live records, their slots, the packets up to and with each, their tickets."""

    records: Records
    slots: Slots
    costs: NDArray[np.int64]
    tickets: NDArray[np.int64]


class Due(NamedTuple):
    """What is due of a front, and fits.

    Attributes:
        start, stop: from where to where in the front.
        packets: of all these.
        is_blocked: the next one is due, but costs more than is left.
    """

    front: Front
    start: int
    stop: int
    packets: int
    is_blocked: bool


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
        self._fronts = self._no_fronts()
        self._tag = Column(np.uint32)  # ticket modulo 2^28, and ring
        self._lacks = Column(np.uint32)  # of NO_END to the end of a slot: 0 for most
        self._base: float | None = None

    def reserve(self, slots: int) -> None:
        """Make room for slots below `slots`."""
        self._tag.reserve(slots)
        self._lacks.reserve(slots)

    def end(self, slot: int, ends_at: float | None) -> None:
        """Note when what is in a slot ends, in Unix seconds; None: never."""
        lacks = 0 if ends_at is None else NO_END - int(ends_at)
        if self._lacks.rows[slot] != lacks:  # what is not written costs nothing
            self._lacks.rows[slot] = lacks

    def ring_of(self, slot: int) -> int:
        """The ring a slot is in."""
        return int(self._tag.rows[slot]) & MAX_RINGS

    def record(self, slot: int) -> Records:
        """The record of a slot in a ring, to be read and changed in place."""
        tag = int(self._tag.rows[slot])
        queue = self._queues[tag & MAX_RINGS]
        return queue.record(queue.head + (((tag >> _RING_BITS) - queue.head) % _TICKETS))

    def push(
        self,
        ring: int,
        records: Records,
        due: float | NDArray[np.float64],
        which: NDArray[np.int64] | slice = _ALL,
    ) -> None:
        """Put slots that are in no ring behind the others of one.

        Args:
            ring: which one.
            records: of the slots; they are made those of the ring.
            due: when they are due, which must not fall: all, or one by one, or `which` of these.
            which: of `due`, for each slot.
        """
        if len(records):
            due_ms = self._ms(due)
            records["due"] = due_ms if isinstance(due, float) else due_ms[which]
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
        return chosen(records, self._is_live(ring, records["slot"], queue.head))

    def clear(self) -> None:
        """Empty all rings."""
        self._fronts = self._no_fronts()
        for ring, queue in enumerate(self._queues):
            queue.clear()
            self.sizes[ring] = 0
        slots = len(self._tag.rows)
        self._tag = Column(np.uint32)
        self._tag.reserve(slots)

    def head_due(self, ring: int) -> float:
        """When the first of a ring that has not been aired is due; inf when there is none.

        What was aired has been popped, unless the front of the ring shows what comes next.
        """
        front, queue = self._fronts[ring], self._queues[ring]
        if front.left:
            return float(self.moment(front.next_due))
        while self.sizes[ring]:
            head = queue.record(queue.head)
            expected = queue.head % _TICKETS << _RING_BITS | ring
            if self._tag.rows[head["slot"][0]] == expected:
                return float(self.moment(int(head["due"][0])))
            queue.drop(1)
        return inf

    def front(self, ring: int) -> Front:
        """The front of a ring; an empty one where nothing has been looked at."""
        return self._fronts[ring]

    def due(self, ring: int, packets: int, now: float) -> Due:
        """What of the front of a ring is due and fits so many packets."""
        front = self._fronts[ring]
        return front.due(front.at, front.due_by(self._ms(now)), packets)

    def due_by(self, ring: int, now: float) -> int:
        """Up to which of the front of a ring all are due."""
        return self._fronts[ring].due_by(self._ms(now))

    def look(
        self, ring: int, packets: int, until: float, wall: float, costs_of: Callable[[Slots], Slots]
    ) -> list[int]:
        """Make the front of a ring anew, of what is due until then and fits so many packets.

        Returns the slots met whose end has come.
        """
        queue = self._queues[ring]
        found: list[_Found] = []
        expired: list[int] = []
        scanned = spent = most_lacking = 0
        while self.sizes[ring] and spent < packets:
            first = queue.head + scanned
            piece = queue.peek(scanned, packets - spent + _LOOK_AHEAD)
            piece = piece[: int(piece["due"].searchsorted(np.uint32(self._ms(until)), "right"))]
            if not len(piece):
                break
            scanned += len(piece)
            slots = piece["slot"].astype(np.int64)
            tickets = np.arange(first, first + len(piece))
            here = self._is_live(ring, slots, first)
            if (lacks := self._lacks.rows[slots]).any():
                over = here & (NO_END - lacks <= wall)
                expired += slots[over].tolist()
                here &= ~over
                most_lacking = max(most_lacking, int(lacks[here].max(initial=0)))
            if not here.all():
                piece, slots, tickets = chosen(piece, here), slots[here], tickets[here]
            costs = costs_of(slots).cumsum() + spent
            found.append(_Found(piece, slots, costs, tickets))
            spent = int(costs[-1]) if len(costs) else spent
        end = queue.head + scanned
        self._fronts[ring] = (
            _front_of(found, end, NO_END - most_lacking) if found else _no_front(end)
        )
        return expired

    def is_more(self, ring: int, now: float) -> bool:
        """Whether there may be something due behind the front of a ring."""
        queue, end = self._queues[ring], self._fronts[ring].end
        end = max(end, queue.head)
        return end < queue.tail and int(queue.record(end)["due"][0]) <= self._ms(now)

    def waiting(self, ring: int) -> int:
        """How many slots of a ring have not been aired."""
        front = self._fronts[ring]
        return self.sizes[ring] - (front.at - front.popped)

    def look_away(self, slot: int) -> bool:
        """Have no front that shows a slot; whether one did. All that was aired has been popped."""
        tag = int(self._tag.rows[slot])
        ring = tag & MAX_RINGS
        head, end = self._queues[ring].head, self._fronts[ring].end
        is_shown = ((tag >> _RING_BITS) - head) % _TICKETS < end - head
        if is_shown:
            self._fronts[ring] = _no_front()
        return is_shown

    def pop(self, ring: int) -> Records:
        """Take what has been aired of a front out of its ring, to be pushed to one at once."""
        front, queue = self._fronts[ring], self._queues[ring]
        records = front.records[front.popped : front.at]
        queue.drop(int(front.tickets[front.at - 1]) + 1 - queue.head)
        self.sizes[ring] -= len(records)
        front.popped = front.at
        return records

    def is_untidy(self, now: float) -> bool:
        """Whether a queue has too many stale records, or the base lies too far behind."""
        sizes = self.sizes
        return self._ms(now) > _REBASE_MS or any(
            len(queue) > 2 * sizes[ring] + _SLACK for ring, queue in enumerate(self._queues)
        )

    def tidy(self, now: float) -> None:
        """Rid queues of stale records that are too many, and bring the base up.

        What was aired has been popped.
        """
        self._fronts = self._no_fronts()
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

    def _no_fronts(self) -> list[Front]:
        return [_no_front() for _ in self._queues]

    def _ms(self, moment: Any) -> Any:  # noqa: ANN401 (one moment or many)
        """Whole milliseconds from the base on."""
        if self._base is None:
            self._base = float(np.min(moment)) - _BEHIND_MS / 1000
        if isinstance(moment, float):
            return max(round((moment - self._base) * 1000), 0)
        return np.maximum(np.rint((moment - self._base) * 1000), 0)

    def _is_live(self, ring: int, slots: Slots, first_ticket: int) -> NDArray[np.bool_]:
        """Which records of these slots, one behind the other, are still those of their slots."""
        is_live: NDArray[np.bool_] = self._tag.rows[slots] == _tags(ring, first_ticket, len(slots))
        return is_live


def packets_before(costs: NDArray[np.int64]) -> Sequence[int]:
    """The packets before each of some EMMs, and of all; `costs`: up to and with each."""
    count = len(costs)
    return [0, *costs.tolist()] if count and costs[-1] != count else range(count + 1)


def _front_of(found: Sequence[_Found], end: int, first_end: int) -> Front:
    """The front of what was found piece by piece; there is one."""
    if len(found) == 1:
        return Front(found[0], end, first_end)
    pieces, *columns = zip(*found, strict=True)
    return Front(_Found(joined(pieces), *map(np.concatenate, columns)), end, first_end)


def _no_front(end: int = 0) -> Front:
    nothing = _Found(np.empty(0, WALKING), _NO_PLACES, _NO_PLACES, _NO_PLACES)
    return Front(nothing, end, NO_END)


def _tags(ring: int, first_ticket: int, count: int) -> NDArray[np.uint32]:
    """The tags of records with successive tickets."""
    count_up = _COUNT[:count]
    if count > len(_COUNT):
        count_up = np.arange(count, dtype=np.uint32) << np.uint32(_RING_BITS)
    # A ticket beyond 2^28 overflows, and so begins anew.
    return count_up + np.uint32(first_ticket % _TICKETS << _RING_BITS | ring)
