"""What is aired next (docs/carousel.md). Pure: clocks come as arguments.

Ring 1 holds first airings and goes before everything. Ring i + 2 is that of
class i: its period is one for all, so due order is queue order and what is
due is the head of its queue. An EMM is in one ring, or waits for its window.
What was aired moves on behind the others when somebody asks, or when the front
of a ring, which is looked at once for several turns, is used up.
`now` is any monotonic clock (seconds); `wall` is Unix time by the database's
clock.
"""

from collections.abc import Mapping, Sequence
from math import inf, nan
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from portcullis.cycler.arena import Arena, Emms, Piece, StateSections
from portcullis.cycler.columns import Column
from portcullis.cycler.config import AiringClass
from portcullis.cycler.cycles import Cycle
from portcullis.cycler.first_airings import FirstAirings
from portcullis.cycler.plan import Part, Plan
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
from portcullis.cycler.rings import NONE, Due, Rings
from portcullis.cycler.shares import Shares
from portcullis.cycler.windows import Windows
from portcullis.store.airable import AirableEmm, EmmKey, FirstAiring

_FIRST = 1
_CLASSES = 2  # the ring of class 0
_SLICE = 1 << 16
_TURNS = 16  # a front is for at least so many turns like the one that looks at it
_MOST = 4096  # packets of a front, unless a turn is for more
_AHEAD_S = 0.064  # what is due until then is in the front
_PLANNED = 28  # packets: turns of fewer are chosen one by one
_FEW_TURNS = 4  # a front that has less of these is made anew before they are planned
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
        first_aired: first airings.
        walk_s: how long after its first airing an EMM is in the last class, all being on time.
    """

    def __init__(self, classes: Sequence[AiringClass]) -> None:
        self.arena = Arena()
        self.revision = 0
        self._aired = [0] * len(classes)
        self.first_aired = 0
        self._classes = tuple(classes)
        self._rings = Rings(len(classes) + 1)
        self._shares = Shares(classes)
        self._late = [0.0] * len(classes)
        self._turns: list[float] = []  # when something was aired that has not moved on
        self._served: list[list[tuple[int, int]]]  # by ring: in which of the turns, how many
        self._served = [[] for _ in range(self._rings.last + 1)]
        self._plan: Plan | None = None
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

    @property
    def aired(self) -> list[int]:
        """By class: EMMs aired beside the first airings."""
        self._settle()
        return self._aired

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
        self._look_away(slot)
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
            self._look_away(slot)
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
                self._look_away(slot)
                self._discard(slot)

    def take(self, packets: int, now: float, wall: float) -> Picks:
        """Choose what to air of at most `packets`; what is chosen counts as aired."""
        if self._plan is not None:
            is_next = not self._rings.waiting(_FIRST) and self._windows.next_start > wall
            if is_next and (piece := self._plan.next(packets, now, wall)) is not None:
                return Picks([piece], piece.cost, [])
            self._settle()
        self._prepare(now, wall)
        parts: list[Part] = []
        left, first = packets, 0
        if self._rings.waiting(_FIRST):
            due = self._due(_FIRST, packets, now, wall)
            if due.packets:
                parts.append(Part(_FIRST, due.front, due.start, due.stop))
            left, first = 0 if due.is_blocked else packets - due.packets, due.packets
        chosen, planned = self._choose(left, first, now, wall)
        parts += chosen
        pieces = [self._piece(part) for part in parts]
        told = [one for part in parts for one in self._told(part, wall)]
        self._air(now, parts)
        if planned is not None:
            pieces.append(planned)
        return Picks(pieces, sum(piece.cost for piece in pieces), told)

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
        self._look_away(slot)
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
        self._give_up()
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
            self._give_up()
            self._rings.tidy(now)

    def _choose(
        self, left: int, first: int, now: float, wall: float
    ) -> tuple[list[Part], Piece | None]:
        """What of the classes to serve with `left` packets; `first` have gone to first airings.

        What a plan has next, where there is one or one can be made; if not, parts for this turn.
        """
        if self._plan is not None:
            if (piece := self._plan.next(left, now, wall)) is not None:
                self._plan.first += first
                return [], piece
            self._give_up()
        waiting = [ring for ring in self._class_rings() if self._head_due(ring) <= now]
        found: dict[int, Due] = {}
        for ring in waiting:
            found[ring] = due = self._due(ring, left, now, wall)
            if due.is_blocked and not due.packets:
                break  # its EMM wants more packets than are left: those behind it wait with it
        if found and left >= _PLANNED and not first and len(found) == len(waiting):
            self._plan = self._plan_of(found, left, now)
        if self._plan is None:
            return self._share(waiting, found, left, first), None
        return [], self._plan.next(left, now, wall)

    def _give_up(self) -> None:
        """Go on without a plan, from where it stands; what was aired of it has been noted."""
        if self._plan is not None:
            plan, self._plan = self._plan, None
            served = {ring - _CLASSES: packets for ring, packets in plan.served.items()}
            self._shares.earn(list(served), plan.first + plan.packets)
            for index, packets in served.items():
                self._shares.pay(index, packets)

    def _look_away(self, slot: int) -> None:
        """Look anew at what shows a slot; what was aired has been noted."""
        ring = self._rings.ring_of(slot)
        if self._rings.look_away(slot) and ring != _FIRST:
            self._give_up()

    def _plan_of(self, found: Mapping[int, Due], packets: int, now: float) -> Plan | None:
        """What to air for as long as each class found has enough due for turns of so many packets.

        Until then it does not matter when they come. None where it is not enough for one turn, or
        some airing is to be told.
        """
        fronts = {ring: due.front for ring, due in found.items()}
        if not all(self._first_airings.are_told(ring, front) for ring, front in fronts.items()):
            return None
        stops = {ring: self._rings.due_by(ring, now) for ring in fronts}
        due = {
            ring - _CLASSES: front.packets(front.at, stops[ring]) for ring, front in fronts.items()
        }
        parts = []
        for index, share in self._shares.ahead(due, packets).items():
            ring = index + _CLASSES
            front = fronts[ring]
            parts.append(Part(ring, front, front.at, front.fit(front.at, share, stops[ring])))
        if not parts:
            return None
        others = [self._head_due(ring) for ring in self._class_rings() if ring not in fronts]
        soonest = now + min(one.every for one in self._classes)  # of those aired meanwhile
        until = min([*others, soonest])
        return Plan(self.arena, parts, until)

    def _share(
        self, waiting: Sequence[int], found: Mapping[int, Due], left: int, first: int
    ) -> list[Part]:
        """Share out `left` packets among what was found; `first` have gone to first airings."""
        wanted = {ring - _CLASSES: due.packets for ring, due in found.items()}
        packets = first + min(left, sum(wanted.values()))
        self._shares.earn([ring - _CLASSES for ring in waiting], packets)
        parts = []
        for index, share in self._shares.allot(left, wanted).items():
            front, start, stop, _, _ = found[index + _CLASSES]
            stop = front.fit(start, share, stop)
            self._shares.pay(index, front.packets(start, stop))
            if stop > start:
                parts.append(Part(index + _CLASSES, front, start, stop))
        return parts

    def _piece(self, part: Part) -> Piece:
        """What a part of a front is as it goes out."""
        front = part.front
        if front.emms is None:
            front.emms = Emms(self.arena, front.slots, front.costs)
        return Piece(front.emms, part.start, part.stop)

    def _due(self, ring: int, packets: int, now: float, wall: float) -> Due:
        """What of a ring is due and fits so many packets."""
        front = self._rings.front(ring)
        few = packets if packets < _PLANNED else _FEW_TURNS * packets
        if front.first_end <= wall or (front.packets_left < few and not self._shows_all(ring, now)):
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
        self._settle()
        if not self._rings.front(ring).left:
            self._catch_up()
        return self._rings.head_due(ring)

    def _told(self, part: Part, wall: float) -> list[FirstAiring]:
        """What is to be told of what is aired in this turn."""
        ring, front, start, stop = part
        if not front.may_tell:
            return []
        return self._first_airings.tell(ring, front.records[start:stop], wall)

    def _air(self, now: float, parts: Sequence[Part]) -> None:
        """Note that parts of fronts are aired in one turn."""
        for ring, front, start, stop in parts:
            front.at = stop
            self._served[ring].append((len(self._turns), stop - start))
            if ring == _FIRST:
                self.first_aired += stop - start
            else:
                self._aired[ring - _CLASSES] += stop - start
        if parts:
            self._turns.append(now)

    def _settle(self) -> None:
        """Note what has been aired of a plan."""
        if self._plan is not None:
            for now, parts in self._plan.aired():
                self._air(now, parts)

    def _catch_up(self) -> None:
        """Put what has been aired behind the others of its class, or of the next, turn by turn."""
        self._settle()
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
                    some = records if which is _ALL else chosen(records, which)
                    moved.setdefault(to, []).append((self._kept(to, some), turns[which]))
        for ring, pieces in moved.items():
            records, turns = pieces[0]
            if len(pieces) > 1:
                columns = list(zip(*pieces, strict=True))
                records, turns = joined(columns[0]), np.concatenate(columns[1])
                order = turns.argsort(kind="stable")
                records, turns = chosen(records, order), turns[order]
            self._rings.push(ring, records, self._after(ring, at), turns)

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
