"""What is aired next (docs/carousel.md). Pure: clocks come as arguments.

Queue 0 holds first airings and goes before everything. Queue i + 1 is the
ring of class i: its period is one for all, so due order is queue order and
the next EMM of a class is the head of its ring. `now` is any monotonic clock
(seconds); `wall` is Unix time by the database's clock.
"""

import heapq
from array import array
from collections.abc import Sequence
from math import inf, isnan, nan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from portcullis.cycler.arena import Arena
from portcullis.cycler.config import AiringClass
from portcullis.cycler.rings import END, NONE, Rings
from portcullis.store.feed import AirableEmm, EmmKey, FirstAiring

_FIRST = 0
_MAX_CREDIT = 64.0  # packets a class may claim at once after first airings went before it
_SMOOTHING = 0.02  # of the stretch: about the last 50 airings


class Picks(NamedTuple):
    """What to air now, in order, and which of it the database is to hear of."""

    slots: list[int]
    packets: int
    first_airings: list[FirstAiring]


class Carousel:
    """All EMMs of one stream.

    Attributes:
        arena: bytes and numbers by slot.
        position: key last aired from the last class, to start behind after a restart.
        aired: by class: EMMs aired; first airings are in `first_aired`.
    """

    def __init__(self, classes: Sequence[AiringClass]) -> None:
        self.arena = Arena()
        self.position: EmmKey = (0, 0, 0)
        self.aired = [0] * len(classes)
        self.first_aired = 0
        self._classes = tuple(classes)
        self._rings = Rings(len(classes) + 1)
        self._airings = array("H")  # in the present class, by slot
        self._credit = [0.0] * len(classes)
        self._late = [0.0] * len(classes)
        self._waiting: list[tuple[float, int]] = []

    def upsert(self, emm: AirableEmm, now: float, wall: float) -> None:
        """Take a new or changed EMM; raises TsError if its section is none.

        A new order goes to first airing. A re-key or re-seal replaces the bytes and keeps the
        EMM's class and due time.
        """
        arena, rings = self.arena, self._rings
        slot = arena.find(emm.key)
        if slot is None:
            slot = arena.add(emm)
            if slot == len(self._airings):
                self._airings.append(0)
                rings.grow(slot + 1)
            self._admit(slot, now, wall)
            return
        if arena.revision[slot] == emm.revision and arena.section(slot) == emm.section:
            return
        arena.replace(slot, emm)
        is_order = emm.cause == "order" and emm.first_aired_at is None
        if is_order:
            arena.first_aired[slot] = nan
        waits = rings.ring[slot] == NONE
        if waits or arena.starts_at[slot] > wall or (is_order and rings.ring[slot] != _FIRST):
            rings.unlink(slot)
            self._admit(slot, now, wall)

    def remove(self, key: EmmKey) -> None:
        """Forget an EMM, if it is there."""
        slot = self.arena.find(key)
        if slot is not None:
            self._discard(slot)

    def take(self, packets: int, now: float, wall: float) -> Picks:
        """Choose what to air of at most `packets`; what is chosen counts as aired."""
        arena, rings = self.arena, self._rings
        self._start_waiting(now, wall)
        picks = Picks([], 0, [])
        left = packets
        while left > 0:
            ring, due = self._choose(now)
            if ring == NONE:
                break
            slot = rings.head[ring]
            if arena.ends_at[slot] <= wall:
                self._discard(slot)
                continue
            cost = arena.cost[slot]
            if cost > left:
                break
            left -= cost
            self._pay(ring, due, cost)
            picks.slots.append(slot)
            if not arena.told[slot]:
                picks.first_airings.append(self._tell(slot, wall))
            self._move_on(ring, slot, now)
        return picks._replace(packets=packets - left)

    def next_due(self, wall_ahead: float = 0.0) -> float:
        """When `take` next has something, on the monotonic clock; -inf: now, inf: nothing.

        Args:
            wall_ahead: wall clock minus monotonic clock, for EMMs whose window lies ahead.
        """
        rings = self._rings
        if rings.head[_FIRST] != END:
            return -inf
        moments = [rings.due[head] for head in rings.head if head != END]
        if self._waiting:
            moments.append(self._waiting[0][0] - wall_ahead)
        return min(moments, default=inf)

    def size(self, class_index: int) -> int:
        """How many EMMs are in a class."""
        return self._rings.size[class_index + 1]

    @property
    def first_waiting(self) -> list[EmmKey]:
        """The keys that wait for their first airing."""
        return [self.arena.key(slot) for slot in self._rings.slots(_FIRST)]

    @property
    def first_size(self) -> int:
        """How many EMMs wait for their first airing."""
        return self._rings.size[_FIRST]

    def stretch(self, class_index: int, now: float) -> float:
        """The actual period of a class over the configured one; 1.0 when all is on time."""
        every = self._classes[class_index].every
        head = self._rings.head[class_index + 1]
        overdue = 0.0 if head == END else now - self._rings.due[head]
        return (every + max(self._late[class_index], overdue, 0.0)) / every

    def aired_elsewhere(
        self, key: EmmKey, revision: int, first_aired: float, now: float, wall: float
    ) -> None:
        """Hear that another cycler has aired an EMM first: it need not be first here."""
        slot = self.arena.find(key)
        if slot is not None and self.arena.revision[slot] == revision:
            self.arena.first_aired[slot] = first_aired
            self.arena.told[slot] = 1
            self.arena.end_wait(slot)
            if self._rings.ring[slot] == _FIRST:
                self._rings.unlink(slot)
                self._admit(slot, now, wall)

    def place(self, now: float, wall: float, position: EmmKey) -> None:
        """Sort every EMM in as if it had been aired on time all along, after a start or takeover.

        The class follows from the time since the first airing; the last class is spread over its
        period, by key, starting behind `position`.
        """
        arena = self.arena
        rings = self._rings
        rings.clear()
        self._waiting.clear()
        used = np.frombuffer(arena.used, np.bool_)
        starts_at = np.frombuffer(arena.starts_at, np.float64)
        first_aired = np.frombuffer(arena.first_aired, np.float64)
        ahead = used & (starts_at > wall)
        for slot in np.flatnonzero(ahead).tolist():
            heapq.heappush(self._waiting, (arena.starts_at[slot], slot))
        never = np.flatnonzero(used & ~ahead & np.isnan(first_aired))
        revision = np.frombuffer(arena.revision, np.int64)
        never = never[np.argsort(revision[never], kind="stable")]
        rings.fill(_FIRST, never, np.full(len(never), now))
        rest = np.flatnonzero(used & ~ahead & ~np.isnan(first_aired))
        self._place_by_age(rest, np.maximum(wall - first_aired[rest], 0.0), now, position)

    def _place_by_age(
        self, slots: NDArray[np.int64], age: NDArray[np.float64], now: float, position: EmmKey
    ) -> None:
        begins = 0.0
        airings = np.frombuffer(self._airings, np.uint16)
        for index, one in enumerate(self._classes[:-1]):
            begun = int(index == 0)  # the first airing is the first one of the first class
            ends = begins + ((one.airings or 0) - begun) * one.every
            here = (age >= begins) & (age < ends)
            times = np.floor((age[here] - begins) / one.every)
            due = now + begins + (times + 1) * one.every - age[here]
            order = np.argsort(due, kind="stable")
            self._rings.fill(index + 1, slots[here][order], due[order])
            airings[slots[here]] = times.astype(np.uint16) + begun
            begins = ends
        steady = slots[age >= begins]
        arena = self.arena
        device = np.frombuffer(arena.device, np.int64)[steady]
        message = np.frombuffer(arena.message, np.int64)[steady]
        part = np.frombuffer(arena.part, np.uint8)[steady]
        order = np.lexsort((part, message, device))
        d, m, p = position
        behind = (device > d) | ((device == d) & ((message > m) | ((message == m) & (part > p))))
        order = np.roll(order, int(behind.sum()))
        every = self._classes[-1].every
        due = now + every * np.arange(len(steady)) / max(len(steady), 1)
        self._rings.fill(len(self._classes), steady[order], due)

    def _admit(self, slot: int, now: float, wall: float) -> None:
        """Put a slot that is in no queue where it belongs."""
        starts_at = self.arena.starts_at[slot]
        if starts_at > wall:
            heapq.heappush(self._waiting, (starts_at, slot))
        elif isnan(self.arena.first_aired[slot]):
            self._rings.push(_FIRST, slot, now)
        else:
            index = self._class_at(wall - self.arena.first_aired[slot])
            self._airings[slot] = int(index == 0)
            self._rings.push(index + 1, slot, now + self._classes[index].every)

    def _class_at(self, age: float) -> int:
        """The class of an EMM so many seconds after its first airing."""
        for index, one in enumerate(self._classes[:-1]):
            age -= ((one.airings or 0) - int(index == 0)) * one.every
            if age < 0:
                return index
        return len(self._classes) - 1

    def _start_waiting(self, now: float, wall: float) -> None:
        """Admit what waited for its window."""
        while self._waiting and self._waiting[0][0] <= wall:
            starts_at, slot = heapq.heappop(self._waiting)
            arena = self.arena
            # The slot may meanwhile hold another EMM, or the same one with another window.
            if (
                arena.used[slot]
                and self._rings.ring[slot] == NONE
                and arena.starts_at[slot] == starts_at
            ):
                self._admit(slot, now, wall)

    def _choose(self, now: float) -> tuple[int, list[int]]:
        """The queue whose head is next (NONE: nothing is due), and the classes that are due."""
        rings = self._rings
        due = [
            index
            for index, head in enumerate(rings.head[1:])
            if head != END and rings.due[head] <= now
        ]
        if rings.head[_FIRST] != END:
            return _FIRST, due
        if not due:
            return NONE, due
        claimant = max(due, key=self._credit.__getitem__)
        return (claimant if self._credit[claimant] >= 1 else due[0]) + 1, due

    def _pay(self, ring: int, due: list[int], cost: int) -> None:
        """Credit each class that is due with its share of the packets; who is served pays."""
        for index, one in enumerate(self._classes):
            if index in due:
                credit = self._credit[index] + one.min_share * cost
                self._credit[index] = min(credit, _MAX_CREDIT)
            else:
                self._credit[index] = 0.0  # who wants nothing saves nothing
        if ring != _FIRST:
            self._credit[ring - 1] = max(self._credit[ring - 1] - cost, 0.0)

    def _tell(self, slot: int, wall: float) -> FirstAiring:
        arena = self.arena
        since = arena.end_wait(slot)
        waited_s = None
        if isnan(arena.first_aired[slot]):
            arena.first_aired[slot] = wall
            waited_s = None if since is None else max(wall - since, 0.0)
        arena.told[slot] = 1
        device_id, message_id, part = arena.key(slot)
        return FirstAiring(
            device_id=device_id,
            message_id=message_id,
            part=part,
            revision=arena.revision[slot],
            covers=arena.covers[slot],
            completes_set=arena.set_is_told(slot),
            aired_at=arena.first_aired[slot],
            waited_s=waited_s,
        )

    def _move_on(self, ring: int, slot: int, now: float) -> None:
        """Count an airing and put the EMM behind the others of its class, or of the next."""
        rings = self._rings
        if ring == _FIRST:
            index, airings = 0, 1
            self.first_aired += 1
        else:
            index, airings = ring - 1, self._airings[slot] + 1
            self.aired[index] += 1
            self._late[index] += (now - rings.due[slot] - self._late[index]) * _SMOOTHING
        if index == len(self._classes) - 1:
            self.position = self.arena.key(slot)
        limit = self._classes[index].airings
        if limit is None:
            airings = 0  # for ever: nothing to count
        elif airings >= limit:
            index, airings = index + 1, 0
        self._airings[slot] = airings
        rings.unlink(slot)
        rings.push(index + 1, slot, now + self._classes[index].every)

    def _discard(self, slot: int) -> None:
        self._rings.unlink(slot)
        self.arena.remove(slot)
