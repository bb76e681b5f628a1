"""A million EMMs in flat memory: bytes by size, no object and no number per EMM. Pure.

Sections of one size lie side by side in one slab, without their first three
bytes, which follow from the size. What a section's header says
(docs/emm-format.md: address, number) is read there and kept nowhere else; a
row that says otherwise than its section is refused. Packets are made when an
EMM is aired, on the null PID: PID and continuity counter belong to the
multiplexer.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dvbwire.ts import NULL_PID, PACKET_SIZE
from portcullis.cycler.columns import Column
from portcullis.cycler.errors import NotAirableError
from portcullis.cycler.index import KeyIndex, key_hash, key_hashes
from portcullis.store.airable import AirableEmm, EmmKey

MAX_SECTION_BYTES = 256
_HEADER_BYTES = 16
_TABLE_ID, _FLAGS = 0x82, 0x70  # section_length, below 256, has but the third byte
_BEGINNING = 3  # bytes: table_id, flags and section_length
_SECTION_START = 5  # packet header and pointer_field
_KEPT_START = _SECTION_START + _BEGINNING
_IN_FIRST = PACKET_SIZE - _SECTION_START
_KEPT_IN_FIRST = PACKET_SIZE - _KEPT_START
_ADDRESS = (1 << 40) - 1  # of the first eight bytes
_NUMBER_AT = 12 - _BEGINNING  # of what is kept
_SIZE, _IS_MESSAGE = 0x1FF, 0x200
_PART_BITS, _PART = 4, 0xF  # of what a section says
_PAGE_BITS = 10
_PAGE = 1 << _PAGE_BITS
_IN_PAGE = _PAGE - 1
_PACKET = np.dtype((np.void, PACKET_SIZE))
Slots = NDArray[np.int64]

_FIRST_HEAD = bytes((0x47, 0x40 | NULL_PID >> 8, NULL_PID & 0xFF, 0x10, 0))
_SECOND_HEAD = np.frombuffer(bytes((0x47, NULL_PID >> 8, NULL_PID & 0xFF, 0x11)), np.uint8)


class Headers(NamedTuple):
    """What the as-run log notes of EMMs: the header, and what the arena keeps beside it."""

    raw: NDArray[np.uint8]  # 16 bytes each
    size_kind: NDArray[np.uint16]
    part: NDArray[np.uint8]

    def some(self, start: int, stop: int) -> "Headers":
        """Those from `start` to `stop`."""
        some = slice(start, stop)
        return Headers(self.raw[some], self.size_kind[some], self.part[some])

    @property
    def device(self) -> NDArray[np.int64]:
        """The addresses."""
        return _devices(self.raw)

    @property
    def number(self) -> NDArray[np.int64]:
        """Sequences of states, ids of messages."""
        number: NDArray[np.int64] = self.raw.view(">u4")[:, 3].astype(np.int64)
        return number

    @property
    def message(self) -> NDArray[np.int64]:
        """The ids of messages, 0 for a state."""
        return np.where(self.size_kind & _IS_MESSAGE, self.number, 0)

    @property
    def size(self) -> NDArray[np.int64]:
        """Bytes of the sections."""
        return (self.size_kind & _SIZE).astype(np.int64)

    @property
    def is_message(self) -> NDArray[np.bool_]:
        """Which are messages, or withdrawals of them."""
        is_message: NDArray[np.bool_] = (self.size_kind & _IS_MESSAGE) != 0
        return is_message


def _devices(headers: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The addresses in headers, rows of 16 bytes."""
    first: NDArray[np.int64] = headers.view(">u8")[:, 0].astype(np.int64)
    return first & _ADDRESS


def _numbers(rows: NDArray[np.uint8], at: int, dtype: str) -> NDArray[Any]:
    """The number that each of the rows holds at that byte."""
    return np.ndarray(len(rows), dtype, rows, at, rows.strides[:1])


class _Slab:
    """Sections of one size, kind and part, by place; `pages`: which slots they are.

    Attributes:
        head: what a packet has before that which is kept of a section.
    """

    def __init__(self, size_kind: int, part: int) -> None:
        self.size = size_kind & _SIZE
        self.size_kind = size_kind
        self.part = part
        self.head = np.frombuffer(_FIRST_HEAD + _beginning(self.size), np.uint8)
        self.sections = Column(np.uint8, self.size - _BEGINNING)
        self.pages: list[int] = []
        self.used = 0
        self.free: list[int] = []  # slots


class Arena:
    """Slots by key; removed slots are used again.

    A slot is a page and a place in it. The EMMs of a page are of one size, kind and part, which
    need not be kept of each: one whose size changes gets another slot.
    """

    def __init__(self) -> None:
        self._slabs: list[_Slab] = []
        self._slab_of: dict[tuple[int, int], int] = {}  # by size_kind and part
        self._size_kind = np.empty(0, np.uint16)  # by slab
        self._part = np.empty(0, np.uint8)  # by slab
        self._has_long = False  # whether there has been a section of two packets
        self._slab = Column(np.uint32)  # by page: the number of its slab
        self._start = Column(np.uint32)  # by page: where it begins in its slab
        self._in_use = Column(np.uint16)  # by page: how many of its slots
        self._pages = 0
        self._index = KeyIndex(self._hashes)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def capacity(self) -> int:
        """Slots there are, in use or free."""
        return self._pages << _PAGE_BITS

    def find(self, key: EmmKey) -> int | None:
        """The slot of a key, None if it has none."""
        return self._index.find(key_hash(key), lambda slot: self.key(slot) == key)

    def key(self, slot: int) -> EmmKey:
        """The key of a slot in use."""
        slab, row = self._slab_and_row(slot)
        message_id = _number(row) if slab.size_kind & _IS_MESSAGE else 0
        return (int.from_bytes(row[:5].tobytes(), "big"), message_id, slab.part)

    def keys(self) -> list[EmmKey]:
        """All keys."""
        columns = self.key_columns(self.slots())
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def key_columns(
        self, slots: Slots
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The keys of slots in use: devices, messages, parts."""
        device, message, part = (np.zeros(len(slots), np.int64) for _ in range(3))
        for mine, slab, places in self._by_slab(slots):
            rows = slab.sections.rows
            device[mine] = _numbers(rows, 0, ">u8")[places] >> 24
            if slab.size_kind & _IS_MESSAGE:
                message[mine] = _numbers(rows, _NUMBER_AT, ">u4")[places]
            part[mine] = slab.part
        return device, message, part

    def slots(self) -> Slots:
        """All slots in use."""
        return self._index.slots()

    def number(self, slot: int) -> int:
        """The sequence of a state, the id of a message."""
        return _number(self._slab_and_row(slot)[1])

    def cost(self, slot: int) -> int:
        """Packets of the section."""
        return 1 + int(self._slab_at(slot).size > _IN_FIRST)

    def costs(self, slots: Slots) -> NDArray[np.int64]:
        """Packets of the sections."""
        if not self._has_long:
            return np.ones(len(slots), np.int64)
        sizes = self._size_kind[self._slab.rows[slots >> _PAGE_BITS]] & _SIZE
        costs: NDArray[np.int64] = (sizes > _IN_FIRST) + np.int64(1)
        return costs

    def section(self, slot: int) -> bytes:
        """The EMM as a section."""
        slab, row = self._slab_and_row(slot)
        kept: bytes = row.tobytes()
        return _beginning(slab.size) + kept

    def add(self, emm: AirableEmm) -> int:
        """Give a new key a slot; raises NotAirableError."""
        _check(emm)
        slot = self._take(_size_kind(emm), emm.part)
        self._slab_and_row(slot)[1][:] = _kept(emm)
        self._index.add(key_hash(emm.key), slot)
        return slot

    def replace(self, slot: int, emm: AirableEmm) -> int:
        """Put other bytes under a key that is there: in which slot. Raises NotAirableError."""
        _check(emm)
        slab, row = self._slab_and_row(slot)
        if slab.size_kind == _size_kind(emm):
            row[:] = _kept(emm)
            return slot
        self.remove(slot)
        return self.add(emm)

    def remove(self, slot: int) -> None:
        """Free a slot."""
        self._index.remove(key_hash(self.key(slot)), lambda other: other == slot)
        page = slot >> _PAGE_BITS
        slab = self._slab_at(slot)
        slab.free.append(slot)
        self._in_use.rows[page] -= 1
        if not self._in_use.rows[page]:
            start = int(self._start.rows[page])
            slab.sections.give_back(start, start + _PAGE)

    def load(self, states: "StateSections") -> Slots:
        """Give states whose keys are not there yet slots, in their order."""
        size, starts = states.size, states.start
        slots = np.empty(len(size), np.int64)
        raw = np.frombuffer(states.data, np.uint8)
        size_part = size << _PART_BITS | states.part
        for kind in np.bincount(size_part).nonzero()[0].tolist():
            mine = (size_part == kind).nonzero()[0]
            bytes_, part = kind >> _PART_BITS, kind & _PART
            kept = sliding_window_view(raw, bytes_ - _BEGINNING)[starts[mine] + _BEGINNING]
            slots[mine] = self._append(bytes_, part, kept)
        self._index.add_all(key_hashes(states.device, np.zeros_like(size), states.part), slots)
        return slots

    def headers(self, slots: Slots) -> Headers:
        """What the headers of EMMs say."""
        head = np.empty((len(slots), _HEADER_BYTES), np.uint8)
        for mine, slab, places in self._by_slab(slots):
            head[mine, :_BEGINNING] = slab.head[_SECTION_START:]
            head[mine, _BEGINNING:] = slab.sections.rows[:, : _HEADER_BYTES - _BEGINNING][places]
        return self._headers(slots, head)

    def packets(self, slots: Slots) -> tuple[NDArray[np.uint8], Headers]:
        """EMMs as transport packets in the order given, rows of 188 bytes; and their headers."""
        first, count = None, len(slots)
        if self._has_long:
            costs = self.costs(slots)
            first, count = costs.cumsum() - costs, int(costs.sum())
        packets = np.empty(count, _PACKET)
        for mine, slab, places in self._by_slab(slots):
            kept, at = slab.sections.rows.take(places, 0), mine if first is None else first[mine]
            packets[at] = _packets(slab.head, kept[:, :_KEPT_IN_FIRST])
            if slab.size > _IN_FIRST:
                packets[at + 1] = _packets(_SECOND_HEAD, kept[:, _KEPT_IN_FIRST:])
        rows = packets.view(np.uint8).reshape(-1, PACKET_SIZE)
        head = rows[:, _SECTION_START : _SECTION_START + _HEADER_BYTES]
        head = head.copy() if first is None else head[first]
        return rows, self._headers(slots, head)

    def _headers(self, slots: Slots, head: NDArray[np.uint8]) -> Headers:
        slab = self._slab.rows[slots >> _PAGE_BITS]
        return Headers(head, self._size_kind[slab], self._part[slab])

    def sections(self, slots: Slots) -> list[bytes]:
        """EMMs as sections in the order given."""
        return [self.section(slot) for slot in slots.tolist()]

    def _hashes(self, slots: Slots) -> NDArray[np.int64]:
        return key_hashes(*self.key_columns(slots))

    def _by_slab(self, slots: Slots) -> Sequence[tuple[Slots, _Slab, Slots]]:
        """By slab: which of `slots` are there, and at what places."""
        pages = slots >> _PAGE_BITS
        slabs = self._slab.rows[pages]
        places = self._start.rows[pages] + (slots & _IN_PAGE)
        found = []
        for number in np.bincount(slabs).nonzero()[0].tolist():
            mine = (slabs == number).nonzero()[0]
            found.append((mine, self._slabs[number], places[mine]))
        return found

    def _slab_at(self, slot: int) -> _Slab:
        return self._slabs[int(self._slab.rows[slot >> _PAGE_BITS])]

    def _slab_and_row(self, slot: int) -> tuple[_Slab, NDArray[np.uint8]]:
        slab = self._slab_at(slot)
        place = int(self._start.rows[slot >> _PAGE_BITS]) + (slot & _IN_PAGE)
        return slab, slab.sections.rows[place]

    def _take(self, size_kind: int, part: int) -> int:
        """A slot for one section."""
        number = self._slab_number(size_kind, part)
        slab = self._slabs[number]
        if slab.free:
            slot = slab.free.pop()
        else:
            self._extend(number, 1)
            slot = slab.pages[-1] << _PAGE_BITS | (slab.used - 1) & _IN_PAGE
        self._in_use.rows[slot >> _PAGE_BITS] += 1
        return slot

    def _append(self, size_kind: int, part: int, sections: NDArray[np.uint8]) -> Slots:
        """Put sections of one size and part into slots that were never used."""
        number = self._slab_number(size_kind, part)
        slab = self._slabs[number]
        places = np.arange(slab.used, slab.used + len(sections))
        begun = slab.used >> _PAGE_BITS
        self._extend(number, len(sections))
        slab.sections.rows[places[0] : slab.used] = sections
        pages = np.array(slab.pages[begun:])[(places >> _PAGE_BITS) - begun]
        np.add.at(self._in_use.rows, pages, 1)
        slots: Slots = pages << _PAGE_BITS | places & _IN_PAGE
        return slots

    def _extend(self, number: int, count: int) -> None:
        """Take so many places of a slab that were never used."""
        slab = self._slabs[number]
        slab.used += count
        slab.sections.reserve(slab.used)
        while len(slab.pages) << _PAGE_BITS < slab.used:
            self._begin_page(number)

    def _begin_page(self, number: int) -> None:
        page, pages = self._pages, self._slabs[number].pages
        self._pages += 1
        for column in (self._slab, self._start, self._in_use):
            column.reserve(self._pages)
        self._slab.rows[page] = number
        self._start.rows[page] = len(pages) << _PAGE_BITS
        pages.append(page)

    def _slab_number(self, size_kind: int, part: int) -> int:
        number = self._slab_of.setdefault((size_kind, part), len(self._slabs))
        if number == len(self._slabs):
            slab = _Slab(size_kind, part)
            self._slabs.append(slab)
            self._size_kind = np.append(self._size_kind, np.uint16(size_kind))
            self._part = np.append(self._part, np.uint8(part))
            self._has_long |= slab.size > _IN_FIRST
        return number


def _packets(head: NDArray[np.uint8], payload: NDArray[np.uint8]) -> NDArray[np.void]:
    """Packets of one head with these payloads, the rest stuffed: each one value, copied at once."""
    packets = np.empty((len(payload), PACKET_SIZE), np.uint8)
    start, end = len(head), len(head) + payload.shape[1]
    packets[:, :start] = head
    packets[:, start:end] = payload
    packets[:, end:] = 0xFF
    return packets.view(_PACKET)[:, 0]


def _size_kind(emm: AirableEmm) -> int:
    """Of which slab a row is."""
    return len(emm.section) | (_IS_MESSAGE if emm.message_id else 0)


def _beginning(size: int) -> bytes:
    """The first bytes of a section of so many."""
    return bytes((_TABLE_ID, _FLAGS, size - _BEGINNING))


def _number(kept: NDArray[np.uint8]) -> int:
    """The number that is kept of a section."""
    return int.from_bytes(kept[_NUMBER_AT : _NUMBER_AT + 4].tobytes(), "big")


def _kept(emm: AirableEmm) -> NDArray[np.uint8]:
    """What of a row is kept."""
    return np.frombuffer(emm.section, np.uint8, offset=_BEGINNING)


class Emms:
    """EMMs in their order as they go out, all made when the first is."""

    def __init__(self, arena: Arena, slots: Slots, costs: Sequence[int]) -> None:
        """Take slots, and the packets before each of them and of all."""
        self.arena = arena
        self.slots = slots
        self.ends = costs
        self.are_even = costs[-1] == len(slots)  # of one packet each

    @cached_property
    def packets(self) -> memoryview:
        """The transport packets, one behind the other."""
        packets, self.headers = self.arena.packets(self.slots)
        return packets.data.cast("B")

    @cached_property
    def headers(self) -> Headers:
        """What their headers say."""
        return self.arena.headers(self.slots)


class Piece(NamedTuple):
    """Those of `emms` from `start` to `stop`."""

    emms: Emms
    start: int
    stop: int

    @property
    def slots(self) -> Slots:
        """The slots of the EMMs."""
        return self.emms.slots[self.start : self.stop]

    @property
    def packets(self) -> memoryview:
        """Their transport packets, one behind the other."""
        ends = self.emms.ends
        return self.emms.packets[ends[self.start] * PACKET_SIZE : ends[self.stop] * PACKET_SIZE]

    @property
    def sections(self) -> list[bytes]:
        """Them as sections."""
        return self.emms.arena.sections(self.slots)

    @property
    def cost(self) -> int:
        """Packets of all."""
        return self.emms.ends[self.stop] - self.emms.ends[self.start]

    @property
    def costs(self) -> list[int]:
        """Packets of each."""
        ends = self.emms.ends[self.start : self.stop + 1]
        return [end - begin for begin, end in pairwise(ends)]

    @property
    def headers(self) -> Headers:
        """What their headers say."""
        return self.emms.headers.some(self.start, self.stop)


def _check(emm: AirableEmm) -> None:
    """Raise NotAirableError unless the row holds a section that says what the row says."""
    section = emm.section
    size = len(section)
    if not _HEADER_BYTES <= size <= MAX_SECTION_BYTES:
        raise NotAirableError(f"a section of {size} bytes")
    if section[:_BEGINNING] != _beginning(size):
        raise NotAirableError(f"it does not begin as a section of {size} bytes")
    address, number = int.from_bytes(section[3:8], "big"), int.from_bytes(section[12:16], "big")
    if (address, number) != (emm.device_id, emm.number) or emm.message_id not in (0, number):
        raise NotAirableError(f"its section is number {number} for {address}")


class StateSections(NamedTuple):
    """Sections of states, one behind the other in `data`; of each: its place and its header."""

    data: bytes
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    device: NDArray[np.int64]
    part: NDArray[np.int64]

    @classmethod
    def of(cls, data: bytes, after: int, up_to: int) -> Self:
        """Cut sections of the devices `after < device <= up_to` apart by their lengths.

        Raises NotAirableError if one of them is none: which one cannot be told.
        """
        lengths: list[int] = []  # where they are
        note, at, end = lengths.append, 2, len(data) + 2
        try:
            while at < end:
                note(at)
                at += data[at] + 3  # the bytes before it counts, _BEGINNING
        except IndexError:
            at = 1
        start = np.array(lengths, np.int64) - 2
        size = np.diff(start, append=at - 2)
        raw = np.frombuffer(data + bytes(_HEADER_BYTES), np.uint8)
        head = sliding_window_view(raw, _HEADER_BYTES)[start]
        device = _devices(head)
        fits = (size >= _HEADER_BYTES) & (size <= MAX_SECTION_BYTES)
        fits &= (head[:, 0] == _TABLE_ID) & (head[:, 1] == _FLAGS)
        if at != end or not (fits & (device > after) & (device <= up_to)).all():
            raise NotAirableError(f"among the states of devices {after + 1} to {up_to}")
        return cls(data, start, size, device, head[:, 9].astype(np.int64) >> 4)

    def rows(self, first_aired_at: float) -> Iterator[AirableEmm]:
        """The same as rows of `emms`, for one that is there already; first aired then."""
        columns = (self.start, self.size, self.device, self.part)
        for start, size, device_id, part in zip(*(one.tolist() for one in columns), strict=True):
            section = self.data[start : start + size]
            yield AirableEmm(
                device_id=device_id,
                message_id=0,
                part=part,
                parts=section[9] & 0x0F,
                number=int.from_bytes(section[12:16], "big"),
                covers=0,
                cause="",
                revision=0,
                tombstone=False,
                section=section,
                starts_at=None,
                ends_at=None,
                first_aired_at=first_aired_at,
                ordered_at=None,
            )

    def without(self, these: NDArray[np.bool_]) -> Self:
        """The others."""
        columns = (self.start, self.size, self.device, self.part)
        return type(self)(self.data, *(column[~these] for column in columns))
