"""A million EMMs in flat columns: bytes and numbers by slot, no object per EMM. Pure.

A slot holds the EMM's first packet, ready for a packet-mode channel, on the
null PID: PID and continuity counter belong to the multiplexer. The few EMMs
of more than 183 bytes have their second packet in `_overflow`.
"""

from array import array
from math import inf, nan

from dvbwire.ts import NULL_PID, PACKET_SIZE, packetize_section
from portcullis.store.feed import AirableEmm, EmmKey

_SECTION_START = 5  # packet header and pointer_field
_IN_FIRST = PACKET_SIZE - _SECTION_START


class Arena:
    """Slots by key; removed slots are used again.

    Attributes, all by slot:
        device, message, part, parts, number, covers, revision: as in the row.
        size: bytes of the section.
        cost: packets of the section.
        starts_at, ends_at: Unix seconds; -inf and inf where the row has none.
        first_aired: Unix seconds; nan while it has not been aired.
        used: 1 when the slot holds an EMM, 0 when it is free.
        told: 1 when the database knows of (or has been queued) the first airing.
    """

    def __init__(self) -> None:
        self.device = array("q")
        self.message = array("q")
        self.part = array("B")
        self.parts = array("B")
        self.number = array("q")
        self.covers = array("q")
        self.revision = array("q")
        self.size = array("H")
        self.cost = array("B")
        self.starts_at = array("d")
        self.ends_at = array("d")
        self.first_aired = array("d")
        self.told = array("B")
        self.used = array("B")
        self._packets = bytearray()
        self._overflow: dict[int, bytes] = {}
        self._waiting_since: dict[int, float] = {}
        self._slots: dict[int, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def capacity(self) -> int:
        """Slots there are, in use or free."""
        return len(self.device)

    def find(self, key: EmmKey) -> int | None:
        """The slot of a key, None if it has none."""
        return self._slots.get(_packed(key))

    def key(self, slot: int) -> EmmKey:
        """The key of a slot in use."""
        return (self.device[slot], self.message[slot], self.part[slot])

    def keys(self) -> list[EmmKey]:
        """All keys."""
        return [self.key(slot) for slot in self._slots.values()]

    def add(self, emm: AirableEmm) -> int:
        """Give a new key a slot; raises TsError if its section is none."""
        packets = packetize_section(emm.section, NULL_PID)
        slot = self._free.pop() if self._free else self._grow()
        self._slots[_packed(emm.key)] = slot
        self.used[slot] = 1
        self.device[slot], self.message[slot], self.part[slot] = emm.key
        self.first_aired[slot] = nan
        self._put(slot, emm, packets)
        return slot

    def replace(self, slot: int, emm: AirableEmm) -> None:
        """Put other bytes into a slot; raises TsError if the section is none."""
        self._put(slot, emm, packetize_section(emm.section, NULL_PID))

    def remove(self, slot: int) -> None:
        """Free a slot."""
        del self._slots[_packed(self.key(slot))]
        self.used[slot] = 0
        self._overflow.pop(slot, None)
        self._waiting_since.pop(slot, None)
        self._free.append(slot)

    def packets(self, slot: int) -> bytes:
        """The EMM as transport packets on the null PID."""
        start = slot * PACKET_SIZE
        return bytes(self._packets[start : start + PACKET_SIZE]) + self._overflow.get(slot, b"")

    def section(self, slot: int) -> bytes:
        """The EMM as a section."""
        start, size = slot * PACKET_SIZE + _SECTION_START, self.size[slot]
        first = bytes(self._packets[start : start + min(size, _IN_FIRST)])
        rest = self._overflow.get(slot, b"")
        return first + rest[4 : 4 + size - len(first)]

    def set_is_told(self, slot: int) -> bool:
        """Whether every part of the slot's set has had its first airing."""
        device, message, number = self.device[slot], self.message[slot], self.number[slot]
        for part in range(1, self.parts[slot] + 1):
            other = self.find((device, message, part))
            if other is None or self.number[other] != number or not self.told[other]:
                return False
        return True

    def end_wait(self, slot: int) -> float | None:
        """Since when (Unix seconds) a slot has waited for its first airing; then it no longer does.

        None: no order waits for it, or it has had its first airing.
        """
        return self._waiting_since.pop(slot, None)

    def _grow(self) -> int:
        for column in (
            *(self.device, self.message, self.part, self.parts, self.number, self.covers),
            *(self.revision, self.size, self.cost, self.told, self.used),
        ):
            column.append(0)
        for times in (self.starts_at, self.ends_at, self.first_aired):
            times.append(nan)
        self._packets += bytes(PACKET_SIZE)
        return self.capacity - 1

    def _put(self, slot: int, emm: AirableEmm, packets: list[bytes]) -> None:
        self.parts[slot] = emm.parts
        self.number[slot] = emm.number
        self.covers[slot] = emm.covers
        self.revision[slot] = emm.revision
        self.size[slot] = len(emm.section)
        self.cost[slot] = len(packets)
        self.starts_at[slot] = -inf if emm.starts_at is None else emm.starts_at
        self.ends_at[slot] = inf if emm.ends_at is None else emm.ends_at
        self.told[slot] = emm.first_aired_at is not None
        if emm.first_aired_at is not None:
            self.first_aired[slot] = emm.first_aired_at
        if emm.first_aired_at is None and emm.ordered_at is not None:
            self._waiting_since[slot] = max(emm.ordered_at, self.starts_at[slot])
        else:
            self._waiting_since.pop(slot, None)
        first, *rest = packets
        start = slot * PACKET_SIZE
        self._packets[start : start + PACKET_SIZE] = first
        if rest:
            self._overflow[slot] = b"".join(rest)
        else:
            self._overflow.pop(slot, None)


def _packed(key: EmmKey) -> int:
    """One small integer for a key: a tuple of three would cost three times the memory."""
    device_id, message_id, part = key
    return message_id << 48 | device_id << 8 | part
