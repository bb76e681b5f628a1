"""What is known of each EMM's first airing, and what of it the database is still to hear. Pure."""

from math import isnan

from portcullis.cycler.arena import Arena
from portcullis.cycler.records import Records, details_of_settled, each
from portcullis.cycler.rings import NONE, Front, Rings
from portcullis.cycler.windows import Windows
from portcullis.store.airable import FirstAiring


class FirstAirings:
    """Over the records of rings and windows, and those of settled EMMs still to be told of."""

    def __init__(self, arena: Arena, rings: Rings, windows: Windows) -> None:
        self._arena = arena
        self._rings = rings
        self._windows = windows
        self._untold: dict[int, Records] = {}  # in the last ring

    def settle(self, record: Records) -> None:
        """Keep in mind that a settled EMM's first airing is still to be told, or forget it."""
        slot = int(record["slot"][0])
        if record["told"][0]:
            self._untold.pop(slot, None)
        else:
            self._untold[slot] = record.copy()

    def move(self, slot: int, to: int) -> None:
        """Keep in mind of another slot what was kept of one."""
        if slot in self._untold:
            record = self._untold[to] = self._untold.pop(slot)
            record["slot"] = to

    def forget(self, slot: int) -> None:
        """Have nothing in mind of a slot."""
        self._untold.pop(slot, None)

    def are_told(self, ring: int, front: Front) -> bool:
        """Whether nothing is to be told of any airing of a front."""
        return not (front.may_tell and (self._untold or ring != self._rings.last))

    def tell(self, ring: int, records: Records, wall: float) -> list[FirstAiring]:
        """Say what is now on air that was not told before; `records` are still in their ring."""
        if ring == self._rings.last:
            slots = records["slot"].tolist() if self._untold else []
            untold = [self._untold.pop(slot) for slot in slots if slot in self._untold]
            return [self._say(record, wall) for record in untold]
        told = []
        for record in each(records, records["told"] == 0):
            told.append(self._say(record, wall))
            self._rings.record(int(record["slot"][0]))["told"] = 1
        return told

    def _say(self, record: Records, wall: float) -> FirstAiring:
        """Note in `record` that its EMM is on air, and say so."""
        waited_s = None
        if isnan(record["first_aired"][0]):
            record["first_aired"] = wall
            if not isnan(since := float(record["since"][0])):
                waited_s = max(wall - since, 0.0)
        record["told"] = 1
        slot = int(record["slot"][0])
        device_id, message_id, part = self._arena.key(slot)
        return FirstAiring(
            device_id=device_id,
            message_id=message_id,
            part=part,
            revision=int(record["revision"][0]),
            covers=int(record["covers"][0]),
            completes_set=self._completes_set(slot, int(record["parts"][0])),
            aired_at=float(record["first_aired"][0]),
            waited_s=waited_s,
        )

    def _completes_set(self, slot: int, parts: int) -> bool:
        """Whether every other part of the slot's set has had its first airing."""
        if parts == 1:
            return True
        device, message, mine = self._arena.key(slot)
        number = self._arena.number(slot)
        for part in range(1, parts + 1):
            other = slot if part == mine else self._arena.find((device, message, part))
            if other is None or self._arena.number(other) != number:
                return False
            if other != slot and not self.details(other)["told"][0]:
                return False
        return True

    def details(self, slot: int) -> Records:
        """What is noted of an EMM, to be read and, unless it is settled, changed in place."""
        ring = self._rings.ring_of(slot)
        if ring == NONE:
            return self._windows.record(slot)
        if ring != self._rings.last:
            return self._rings.record(slot)
        untold = self._untold.get(slot)
        return details_of_settled(slot) if untold is None else untold
