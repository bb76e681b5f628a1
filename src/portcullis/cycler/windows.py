"""EMMs whose window lies ahead, until it opens. Pure."""

import heapq
from collections.abc import Iterator
from math import inf

from portcullis.cycler.records import Records


class Windows:
    """Records by slot, with the start of each window in Unix seconds."""

    def __init__(self) -> None:
        self._starts: list[tuple[float, int]] = []
        self._records: dict[int, tuple[float, Records]] = {}

    def put(self, record: Records, starts_at: float) -> None:
        """Have one record wait."""
        slot = int(record["slot"][0])
        self._records[slot] = (starts_at, record.copy())
        heapq.heappush(self._starts, (starts_at, slot))

    def record(self, slot: int) -> Records:
        """The record of a slot that waits, to be read and changed in place."""
        return self._records[slot][1]

    def move(self, slot: int, to: int) -> None:
        """Have another slot wait in the place of one, if it waits."""
        if slot in self._records:
            starts_at, record = self._records.pop(slot)
            record["slot"] = to
            self.put(record, starts_at)

    def drop(self, slot: int) -> None:
        """Forget a slot, if it waits."""
        self._records.pop(slot, None)

    def opened(self, wall: float) -> Iterator[Records]:
        """Take out what has waited long enough."""
        while self._starts and self._starts[0][0] <= wall:
            starts_at, slot = heapq.heappop(self._starts)
            # The slot may meanwhile hold another EMM, or the same one with another window.
            if slot in self._records and self._records[slot][0] == starts_at:
                yield self._records.pop(slot)[1]

    @property
    def next_start(self) -> float:
        """When the next window may open; inf: none waits."""
        return self._starts[0][0] if self._starts else inf
