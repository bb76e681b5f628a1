"""What is aired next (docs/carousel.md). Pure: clocks come as arguments.

Ring 1 holds first airings and goes before everything. Ring i + 2 is that of
class i: its period is one for all, so due order is queue order and what is
due is the head of its queue. An EMM is in one ring, or waits for its window.
What was aired moves on behind the others when somebody asks, or when the front
of a ring, which is looked at once for several turns, is used up.
`now` is any monotonic clock (seconds); `wall` is Unix time by the database's
clock.
"""

from collections.abc import Sequence
from math import inf, nan
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from portcullis.cycler.arena import Arena, Emms, Piece, StateSections
from portcullis.cycler.columns import Column
from portcullis.cycler.config import AiringClass
from portcullis.cycler.cycles import Cycle
from portcullis.cycler.first_airings import FirstAirings
from portcullis.cycler.records import (
    OF_THE_EMM,
    Records,
    Slots,
    chosen,
    each,
    joined,
    record_of,
    settled,
    settled_states,
)
from portcullis.cycler.rings import NONE, Due, Front, Rings
from portcullis.cycler.shares import Shares
from portcullis.cycler.windows import Windows
from portcullis.store.airable import AirableEmm, EmmKey, FirstAiring

_FIRST = 1
_CLASSES = 2  # the ring of class 0
_SLICE = 1 << 16
_TURNS = 16  # a front is for at least so many turns like the one that looks at it
_MOST = 4096  # packets of a front, unless a turn is for more
_AHEAD_S = 0.064  # what is due until then is in the front
_ALL = slice(None)
_NO_SLOTS = np.empty(0, np.int64)
_SMOOTHING = 0.02  # of the stretch: about the last 50 airings

_Moments = TypeVar("_Moments", float, NDArray[np.float64])


class Picks(NamedTuple):
    """What to air now, in order, and which of it the database is to hear of."""

    pieces: list[Piece]
    packets: int
    first_airings: list[FirstAiring]

    def __len__(self) -> int:
        return sum(piece.stop - piece.start for piece in self.pieces)

    @property
    def slots(self) -> Slots:
        """The slots of the EMMs."""
        return np.concatenate([_NO_SLOTS, *(piece.slots for piece in self.pieces)])


class Carousel:
    """All EMMs of one stream.

    Attributes:
        arena: the EMMs by slot.
        revision: the feed's revision up to which all changes have been taken over.
        aired: by class: EMMs aired; first airings are in `first_aired`.
        walk_s: how long after its first airing an EMM is in the last class, all being on time.
    """

    def __init__(self, classes: Sequence[AiringClass]) -> None:
        self.arena = Arena()
        self.revision = 0
        self.aired = [0] * len(classes)
        self.first_aired = 0
        self._classes = tuple(classes)
        self._rings = Rings(len(classes) + 1)
        self._shares = Shares(classes)
        self._late = [0.0] * len(classes)
        self._turns: list[float] = []  # when something was aired that has not moved on
        self._served: list[list[tuple[int, int]]]  # by ring: in which of the turns, how many
        self._served = [[] for _ in range(self._rings.last + 1)]
        self._position: EmmKey = (0, 0, 0)
        self._windows = Windows()
        self._first_airings = FirstAirings(self.arena, self._rings, self._windows)
        self._seen: Column | None = None
        self._is_first_load = False
        self._walk = _walk(classes)
        self.walk_s = max((ends for _, _, ends, _ in self._walk), default=0.0)

    @property
    def position(self) -> EmmKey:
        """The key last aired from the last class, to start behind after a restart."""
        self._catch_up()
        return self._position

    def upsert(self, emm: AirableEmm, now: float, wall: float) -> None:
        """Take a new or changed EMM; raises NotAirableError.

        A new order goes to first airing. A re-key or re-seal replaces the bytes and keeps the
        EMM's class and due time.
        """
        self._catch_up()
        slot = self.arena.find(emm.key)
        starts_at = np.array([-inf if emm.starts_at is None else emm.starts_at])
        if slot is None:
            slot = self.arena.add(emm)
            self._take_in(np.array([slot]))
            self._rings.end(slot, emm.ends_at)
            self._admit(record_of(slot, emm, nan), starts_at, now, wall)
            return
        self._see(slot)
        if self.arena.section(slot) == emm.section:
            return
        self._rings.look_away(slot)
        slot = self._replace(slot, emm)
        self._rings.end(slot, emm.ends_at)
        is_order = emm.cause == "order" and emm.first_aired_at is None
        record = record_of(
            slot, emm, nan if is_order else self._first_airings.details(slot)["first_aired"][0]
        )
        ring = self._rings.ring_of(slot)
        if ring == NONE or starts_at[0] > wall or (is_order and ring != _FIRST):
            self._unlink(slot)
            self._admit(record, starts_at, now, wall)
        elif ring == self._rings.last:
            record["since"] = nan  # no order has waited: it was aired long ago
            self._first_airings.settle(record)
        else:
            held = self._rings.record(slot)
            for name in OF_THE_EMM:
                held[name] = record[name]

    def settle(self, states: StateSections, now: float, wall: float) -> None:
        """Take states that were first aired at least `walk_s` ago."""
        self._catch_up()
        if not self._is_first_load:
            known = [self._refresh(one, now, wall) for one in states.rows(wall - self.walk_s)]
            states = states.without(np.array(known, np.bool_))
        slots = self.arena.load(states)
        self._take_in(slots)
        last = self._rings.last
        self._rings.push(last, settled_states(slots), self._after(last, now))

    def remove(self, key: EmmKey) -> None:
        """Forget an EMM, if it is there."""
        self._catch_up()
        slot = self.arena.find(key)
        if slot is not None:
            self._rings.look_away(slot)
            self._discard(slot)

    def begin_load(self) -> None:
        """From now on note which EMMs are heard of; each device's come together."""
        self._is_first_load = not len(self.arena)
        self._seen = Column(np.uint8)
        self._seen.reserve(self.arena.capacity)

    def end_load(self) -> None:
        """Forget every EMM that was not heard of since `begin_load`."""
        self._catch_up()
        if self._seen is not None:
            seen, self._seen, self._is_first_load = self._seen, None, False
            slots = self.arena.slots()
            for slot in slots[seen.rows[slots] == 0].tolist():
                self._rings.look_away(slot)
                self._discard(slot)

    def take(self, packets: int, now: float, wall: float) -> Picks:
        """Choose what to air of at most `packets`; what is chosen counts as aired."""
        self._prepare(now, wall)
        served: list[tuple[int, Due, int]] = []
        left, spent = packets, 0
        if self._rings.waiting(_FIRST):
            first = self._due(_FIRST, packets, now, wall)
            served.append((_FIRST, first, first.stop))
            left = 0 if first.is_blocked else packets - first.packets
            spent = first.packets
        served += self._choose(left, spent, now, wall)
        pieces: list[Piece] = []
        told: list[FirstAiring] = []
        spent = 0
        for ring, due, stop in served:
            front, start = due.front, due.front.at
            if stop > start:
                if front.may_tell:
                    told += self._first_airings.tell(ring, front.records[start:stop], wall)
                spent += front.packets_to(stop)
                pieces.append(Piece(self._emms(front), start, stop))
                self._count(ring, stop - start)
                front.at = stop
        if pieces:
            self._turns.append(now)
        return Picks(pieces, spent, told)

    def next_due(self, wall_ahead: float = 0.0) -> float:
        """When `take` next has something, on the monotonic clock; -inf: now, inf: nothing.

        Args:
            wall_ahead: wall clock minus monotonic clock, for EMMs whose window lies ahead.
        """
        if self._rings.waiting(_FIRST):
            return -inf
        due = min(map(self._head_due, self._class_rings()))
        return min(due, self._windows.next_start - wall_ahead)

    def size(self, class_index: int) -> int:
        """How many EMMs are in a class."""
        self._catch_up()
        return self._rings.sizes[class_index + _CLASSES]

    @property
    def first_waiting(self) -> list[EmmKey]:
        """The keys that wait for their first airing."""
        self._catch_up()
        return [self.arena.key(slot) for slot in self._rings.live(_FIRST)["slot"].tolist()]

    @property
    def first_size(self) -> int:
        """How many EMMs wait for their first airing."""
        return self._rings.waiting(_FIRST)

    def stretch(self, class_index: int, now: float) -> float:
        """The actual period of a class over the configured one; 1.0 when all is on time."""
        self._catch_up()
        every = self._classes[class_index].every
        overdue = now - self._rings.head_due(class_index + _CLASSES)
        return (every + max(self._late[class_index], overdue, 0.0)) / every

    def cycle(self, now: float) -> Cycle:
        """Where the cycle stands: the longest real period, and since when all have been aired.

        An EMM that was sorted in counts as aired a period before it is due. Of no EMM: as if there
        were one in the last class that is on time.
        """
        longest, since = 0.0, inf
        for index, one in enumerate(self._classes):
            if (due := self._head_due(index + _CLASSES)) < inf:
                longest = max(longest, one.every + max(self._late[index], now - due, 0.0))
                since = min(since, due - one.every)
        every = float(self._classes[-1].every)
        return Cycle(longest, since) if longest else Cycle(every, now - every)

    def aired_elsewhere(
        self, key: EmmKey, revision: int, first_aired: float, now: float, wall: float
    ) -> None:
        """Hear that another cycler has aired an EMM first: it need not be first here."""
        self._catch_up()
        slot = self.arena.find(key)
        if slot is None:
            return
        self._rings.look_away(slot)
        details = self._first_airings.details(slot)
        if details["revision"][0] != revision or details["told"][0]:
            return
        details["first_aired"], details["told"], details["since"] = first_aired, 1, nan
        ring = self._rings.ring_of(slot)
        if ring == self._rings.last:
            self._first_airings.settle(details)
        elif ring == _FIRST:
            record = details.copy()
            self._unlink(slot)
            self._admit(record, np.array([-inf]), now, wall)

    def place(self, now: float, wall: float, position: EmmKey) -> None:
        """Sort every EMM in as if it had been aired on time all along, after a start or takeover.

        The class follows from the time since the first airing; the last class is spread over its
        period, by key, starting behind `position`.
        """
        self._catch_up()
        self._position = position
        rings = self._rings
        walking = np.concatenate([rings.live(ring) for ring in range(_FIRST, rings.last)])
        steady = rings.live(rings.last)
        rings.clear()
        never = np.isnan(walking["first_aired"])
        first = walking[never]
        first = first[np.argsort(first["revision"], kind="stable")]
        rings.push(_FIRST, first, np.full(len(first), now))
        rest = walking[~never]
        age = np.maximum(wall - rest["first_aired"], 0.0)
        for index, begins, ends, begun in self._walk:
            here = (age >= begins) & (age < ends)
            every, passed = self._classes[index].every, age[here] - begins
            times = np.floor(passed / every)
            records = rest[here]
            records["airings"] = times + begun
            due = now + (times + 1) * every - passed
            order = np.argsort(due, kind="stable")
            rings.push(index + _CLASSES, records[order], due[order])
        arrived = rest[age >= self.walk_s]
        for one in each(arrived[arrived["told"] == 0]):
            self._first_airings.settle(one)
        self._spread(np.concatenate([steady, settled(arrived)]), now, position)

    def _spread(self, steady: Records, now: float, position: EmmKey) -> None:
        """Fill the last class, due evenly over its period, by key from behind `position`."""
        order = self._order_behind(steady["slot"], position)
        step = self._classes[-1].every / max(len(steady), 1)
        for start in range(0, len(steady), _SLICE):
            some = order[start : start + _SLICE]
            due = now + step * np.arange(start, start + len(some), dtype=np.float64)
            self._rings.push(self._rings.last, steady[some], due)

    def _order_behind(self, slots: Slots, position: EmmKey) -> NDArray[np.int64]:
        """Places of the slots in the order of their keys, from behind `position` round to it."""
        device, message, part = self.arena.key_columns(slots)
        d, m, p = position
        if m or message.any():
            order = np.lexsort((part, message, device))
            behind = (message > m) | ((message == m) & (part > p))
            behind = (device > d) | ((device == d) & behind)
        else:  # of a million states: in a third of the memory
            key = device << 8 | part
            order, behind = key.argsort(), key > (d << 8 | p)
        return np.roll(order, int(behind.sum()))

    def _prepare(self, now: float, wall: float) -> None:
        """Admit what has waited long enough for its window, and tidy up."""
        for record in self._windows.opened(wall):
            self._catch_up()
            self._admit(record, np.array([-inf]), now, wall)
        if self._rings.is_untidy(now):
            self._catch_up()
            self._rings.tidy(now)

    def _choose(self, left: int, first: int, now: float, wall: float) -> list[tuple[int, Due, int]]:
        """What of the classes to serve with `left` packets; `first` have gone to first airings."""
        waiting = [ring for ring in self._class_rings() if self._head_due(ring) <= now]
        found: dict[int, Due] = {}
        for ring in waiting:
            found[ring] = due = self._due(ring, left, now, wall)
            if due.is_blocked and not due.packets:
                break  # its EMM wants more packets than are left: those behind it wait with it
        wanted = {ring - _CLASSES: due.packets for ring, due in found.items()}
        packets = first + min(left, sum(wanted.values()))
        self._shares.earn([ring - _CLASSES for ring in waiting], packets)
        chosen = []
        for index, share in self._shares.allot(left, wanted).items():
            due = found[index + _CLASSES]
            stop = due.front.fit(share, due.stop)
            self._shares.pay(index, due.front.packets_to(stop))
            chosen.append((index + _CLASSES, due, stop))
        return chosen

    def _due(self, ring: int, packets: int, now: float, wall: float) -> Due:
        """What of a ring is due and fits so many packets."""
        front = self._rings.front(ring)
        if front.first_end <= wall or (
            front.packets_left < packets and not self._shows_all(ring, now)
        ):
            self._catch_up()
            ahead = max(packets, min(_TURNS * packets, _MOST))
            for slot in self._rings.look(ring, ahead, now + _AHEAD_S, wall, self.arena.costs):
                self._discard(slot)
        return self._rings.due(ring, packets, now)

    def _shows_all(self, ring: int, now: float) -> bool:
        """Whether the front of a ring shows all that is due of it."""
        if self._rings.is_more(ring, now):
            return False
        return ring == _FIRST or not self._turns or now < self._after(ring, self._turns[0])

    def _head_due(self, ring: int) -> float:
        """When the next of a ring is due; inf when it is empty."""
        if not self._rings.front(ring).left:
            self._catch_up()
        return self._rings.head_due(ring)

    def _emms(self, front: Front) -> Emms:
        if front.emms is None:
            slots = front.records["slot"].astype(np.int64)
            front.emms = Emms(self.arena, slots, front.costs)
        return front.emms

    def _count(self, ring: int, emms: int) -> None:
        """Note that so many of a ring are aired in this turn."""
        self._served[ring].append((len(self._turns), emms))
        if ring == _FIRST:
            self.first_aired += emms
        else:
            self.aired[ring - _CLASSES] += emms

    def _catch_up(self) -> None:
        """Put what has been aired behind the others of its class, or of the next, turn by turn."""
        if not self._turns:
            return
        at, self._turns = np.array(self._turns), []
        moved: dict[int, list[tuple[Records, Slots]]] = {}
        for ring, served in enumerate(self._served):
            if served:
                turns = np.repeat(*np.array(served).T)
                records = self._rings.pop(ring)
                served.clear()
                for to, which in self._move_on(ring, records, at[turns]):
                    moved.setdefault(to, []).append(
                        (self._kept(to, chosen(records, which)), turns[which])
                    )
        for ring, pieces in moved.items():
            records, turns = pieces[0]
            if len(pieces) > 1:
                columns = list(zip(*pieces, strict=True))
                records, turns = joined(columns[0]), np.concatenate(columns[1])
                order = turns.argsort(kind="stable")
                records, turns = chosen(records, order), turns[order]
            self._push(ring, records, at[turns])

    def _move_on(
        self, ring: int, records: Records, at: NDArray[np.float64]
    ) -> list[tuple[int, slice | NDArray[np.bool_]]]:
        """Count the airing of EMMs of a ring; which of them go where."""
        if ring == _FIRST:
            ring = _CLASSES
            records["airings"] = 0
        else:
            index = ring - _CLASSES
            late = float(at.mean()) - self._rings.moment(float(records["due"].mean()))
            weight = 1 - (1 - _SMOOTHING) ** len(records)
            self._late[index] += (late - self._late[index]) * weight
        limit = self._classes[ring - _CLASSES].airings
        if limit is None:
            self._position = self.arena.key(int(records["slot"][-1]))
            return [(ring, _ALL)]
        records["airings"] += 1
        done = records["airings"] >= limit
        if not done.any():
            return [(ring, _ALL)]
        records["airings"][done] = 0
        return [(ring, ~done), (ring + 1, done)]

    def _admit(
        self, records: Records, starts_at: NDArray[np.float64], now: float, wall: float
    ) -> None:
        """Put EMMs that are in no ring where they belong."""
        ahead = starts_at > wall
        for record, start in zip(each(records, ahead), starts_at[ahead].tolist(), strict=True):
            self._windows.put(record, start)
        never = np.isnan(records["first_aired"])
        self._push(_FIRST, records[~ahead & never], now)
        age = wall - records["first_aired"]
        here = ~ahead & ~never
        for index, _, ends, begun in self._walk:
            entering = records[here & (age < ends)]
            entering["airings"] = begun
            self._push(index + _CLASSES, entering, now)
            here &= age >= ends
        self._push(self._rings.last, records[here], now)

    def _push(self, ring: int, records: Records, now: _Moments) -> None:
        """Put EMMs that are in no ring behind the others of one, due after its period."""
        self._rings.push(ring, self._kept(ring, records), self._after(ring, now))

    def _kept(self, ring: int, records: Records) -> Records:
        """What a ring keeps of records."""
        if ring != self._rings.last or "told" not in (records.dtype.names or ()):
            return records
        for one in each(records, records["told"] == 0):
            self._first_airings.settle(one)
        return settled(records)

    def _after(self, ring: int, now: _Moments) -> _Moments:
        return now if ring == _FIRST else now + self._classes[ring - _CLASSES].every

    def _unlink(self, slot: int) -> None:
        """Take a slot out of its ring, or from those that wait."""
        self._windows.drop(slot)
        self._first_airings.forget(slot)
        self._rings.unlink(slot)

    def _discard(self, slot: int) -> None:
        self._unlink(slot)
        self.arena.remove(slot)

    def _class_rings(self) -> range:
        return range(_CLASSES, self._rings.last + 1)

    def _take_in(self, slots: Slots) -> None:
        self._rings.reserve(self.arena.capacity)
        if self._seen is not None:
            self._seen.reserve(self.arena.capacity)
            self._seen.rows[slots] = 1

    def _replace(self, slot: int, emm: AirableEmm) -> int:
        """Put other bytes under a key; returns the slot that they are in from now on."""
        to = self.arena.replace(slot, emm)
        if to != slot:
            self._take_in(np.array([to]))
            self._windows.move(slot, to)
            self._first_airings.move(slot, to)
            self._rings.move(slot, to)
        return to

    def _see(self, slot: int) -> None:
        if self._seen is not None:
            self._seen.rows[slot] = 1

    def _refresh(self, emm: AirableEmm, now: float, wall: float) -> bool:
        """Take a state that may be here already; returns whether it was."""
        is_here = self.arena.find(emm.key) is not None
        if is_here:
            self.upsert(emm, now, wall)
        return is_here


def _walk(classes: Sequence[AiringClass]) -> list[tuple[int, float, float, int]]:
    """Every class but the last: at what age an EMM is in it, and with how many airings."""
    begins, walk = 0.0, []
    for index, one in enumerate(classes[:-1]):
        begun = int(index == 0)  # the first airing is the first one of the first class
        ends = begins + ((one.airings or 0) - begun) * one.every
        walk.append((index, begins, ends, begun))
        begins = ends
    return walk
