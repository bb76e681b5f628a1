"""Doubly linked queues through the slots: push, unlink and head cost O(1). Pure."""

from array import array

import numpy as np
from numpy.typing import NDArray

END = -1
NONE = -1
"""The ring of a slot that is in none."""


class Rings:
    """Queues over slot numbers; a slot is in one of them at most.

    Attributes:
        ring: by slot: the queue it is in, or NONE.
        due: by slot: when it is due, seconds of the monotonic clock; never falls along a queue.
        head: by queue: the slot first in line, or END.
        size: by queue: how many wait in it.
    """

    def __init__(self, count: int) -> None:
        self.ring = array("b")
        self.due = array("d")
        self.head = [END] * count
        self.size = [0] * count
        self._tail = [END] * count
        self._next = array("i")
        self._previous = array("i")

    def grow(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        more = capacity - len(self.ring)
        self.ring.extend([NONE] * more)
        self.due.extend([0.0] * more)
        self._next.extend([END] * more)
        self._previous.extend([END] * more)

    def push(self, ring: int, slot: int, due: float) -> None:
        """Put a slot that is in no queue behind the last one of `ring`."""
        tail = self._tail[ring]
        self._next[slot] = END
        self._previous[slot] = tail
        if tail == END:
            self.head[ring] = slot
        else:
            self._next[tail] = slot
        self._tail[ring] = slot
        self.ring[slot] = ring
        self.due[slot] = due
        self.size[ring] += 1

    def unlink(self, slot: int) -> None:
        """Take a slot out of its queue, if it is in one."""
        ring = self.ring[slot]
        if ring == NONE:
            return
        after, before = self._next[slot], self._previous[slot]
        if before == END:
            self.head[ring] = after
        else:
            self._next[before] = after
        if after == END:
            self._tail[ring] = before
        else:
            self._previous[after] = before
        self.ring[slot] = NONE
        self.size[ring] -= 1

    def slots(self, ring: int) -> list[int]:
        """A queue from head to tail."""
        found, slot = [], self.head[ring]
        while slot != END:
            found.append(slot)
            slot = self._next[slot]
        return found

    def clear(self) -> None:
        """Empty all queues."""
        np.frombuffer(self.ring, np.int8)[:] = NONE
        for ring in range(len(self.head)):
            self.head[ring] = self._tail[ring] = END
            self.size[ring] = 0

    def fill(self, ring: int, slots: NDArray[np.int64], due: NDArray[np.float64]) -> None:
        """Make an empty queue of slots that are in none, in their order; `due` must not fall."""
        if not len(slots):
            return
        following = np.frombuffer(self._next, np.int32)
        previous = np.frombuffer(self._previous, np.int32)
        following[slots[:-1]] = slots[1:]
        following[slots[-1]] = END
        previous[slots[1:]] = slots[:-1]
        previous[slots[0]] = END
        np.frombuffer(self.ring, np.int8)[slots] = ring
        np.frombuffer(self.due, np.float64)[slots] = due
        self.head[ring], self._tail[ring] = int(slots[0]), int(slots[-1])
        self.size[ring] = len(slots)
