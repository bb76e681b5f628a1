"""From an EMM's key to its slot: open addressing over 4-byte entries, 5 to 7 bytes an EMM. Pure."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from portcullis.store.airable import EmmKey

_FREE, _GONE = 0, 0xFFFFFFFF
_FULL = 0.8
_GROWTH = 4 / 3
_SMALLEST = 1024
_HASH_BITS = 32
_SLICE = 1 << 16
_MASK64 = (1 << 64) - 1
_DEVICE, _MESSAGE, _PART = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9


def key_hash(key: EmmKey) -> int:
    """The hash of one key."""
    device_id, message_id, part = key
    mixed = (device_id * _DEVICE + message_id * _MESSAGE + part * _PART) & _MASK64
    return mixed >> 32


def key_hashes(
    device: NDArray[np.int64], message: NDArray[np.int64], part: NDArray[np.int64]
) -> NDArray[np.int64]:
    """`key_hash` of many."""
    mixed = device.astype(np.uint64) * np.uint64(_DEVICE)
    mixed += message.astype(np.uint64) * np.uint64(_MESSAGE)
    mixed += part.astype(np.uint64) * np.uint64(_PART)
    return (mixed >> np.uint64(32)).astype(np.int64)


class KeyIndex:
    """Slots by the hash of their key. `hashes_of` tells the hashes of slots, to grow by.

    Many that come together are put aside until somebody asks: the table grows once for all.
    """

    def __init__(self, hashes_of: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> None:
        self._hashes_of = hashes_of
        self._table = np.zeros(_SMALLEST, np.uint32)  # slot + 1
        self._aside: list[tuple[NDArray[np.uint32], NDArray[np.uint32]]] = []  # hashes, slots
        self._slots = 0
        self._gone = 0

    def __len__(self) -> int:
        return self._slots

    def slots(self) -> NDArray[np.int64]:
        """All slots."""
        self._take_aside()
        return self._in_table()

    def _in_table(self) -> NDArray[np.int64]:
        table = self._table
        slots: NDArray[np.int64] = table[(table != _FREE) & (table != _GONE)].astype(np.int64) - 1
        return slots

    def find(self, of_key: int, is_it: Callable[[int], bool]) -> int | None:
        """The slot of the key with this hash, of which `is_it` says that it is the one."""
        place = self._place(of_key, is_it)
        return None if place is None else int(self._table[place]) - 1

    def add(self, of_key: int, slot: int) -> None:
        """Take in a slot whose key is not there yet."""
        self._take_aside()
        self._make_room(1)
        table, size = self._table, len(self._table)
        place = of_key * size >> _HASH_BITS
        while table[place] not in (_FREE, _GONE):
            place = (place + 1) % size
        self._gone -= int(table[place] == _GONE)
        table[place] = slot + 1
        self._slots += 1

    def add_all(self, hashes: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        """Take in slots whose keys are not there yet, and differ."""
        self._aside.append((hashes.astype(np.uint32), slots.astype(np.uint32)))
        self._slots += len(slots)

    def remove(self, of_key: int, is_it: Callable[[int], bool]) -> None:
        """Forget a key, if it is there."""
        place = self._place(of_key, is_it)
        if place is not None:
            self._table[place] = _GONE
            self._slots -= 1
            self._gone += 1

    def _place(self, of_key: int, is_it: Callable[[int], bool]) -> int | None:
        self._take_aside()
        table, size = self._table, len(self._table)
        place = of_key * size >> _HASH_BITS
        while (entry := int(table[place])) != _FREE:
            if entry != _GONE and is_it(entry - 1):
                return place
            place = (place + 1) % size
        return None

    def _take_aside(self) -> None:
        if self._aside:
            self._make_room(0)
            for hashes, slots in self._aside:
                self._fill(hashes.astype(np.int64), slots.astype(np.int64))
            self._aside.clear()

    def _make_room(self, more: int) -> None:
        if self._slots + self._gone + more <= len(self._table) * _FULL:
            return
        slots = np.sort(self._in_table())
        size = len(self._table)
        while self._slots + more > size * _FULL:
            size = int(size * _GROWTH)
        self._table = np.zeros(size, np.uint32)
        self._gone = 0
        for start in range(0, len(slots), _SLICE):
            some = slots[start : start + _SLICE]
            self._fill(self._hashes_of(some), some)

    def _fill(self, hashes: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        table, size = self._table, len(self._table)
        places = hashes * size >> _HASH_BITS
        entries = (slots + 1).astype(np.uint32)
        while len(entries):
            free = table[places] == _FREE
            table[places[free]] = entries[free]  # of several at one place the last stays
            lost = table[places] != entries
            places, entries = (places[lost] + 1) % size, entries[lost]
