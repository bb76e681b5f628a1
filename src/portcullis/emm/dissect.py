"""A section or a payload field by field, for people: also one that is damaged.

No reader of the head-end or of a box: it goes on where they stop, and says why they would.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from portcullis.emm.chain import PRODUCT_KEY_BYTES
from portcullis.emm.envelope import (
    FORMAT_VERSION,
    HEADER_BYTES,
    TABLE_ID,
    TAG_BYTES,
    WRAPPED_BYTES,
)
from portcullis.emm.layout import (
    OPEN_END,
    RECORD_BYTES,
    TLV_IN_FORCE,
    TLV_LATER,
    Kind,
)

_MAX_SECTION_LENGTH = 253
_RESERVED_TABLE_IDS = {0x84: "group", 0x86: "global"}
_POSITIONS = ("as the box prefers", "top", "middle", "bottom", "full screen")
_STATUS = {0: "removed: the box holds nothing", 1: "active"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field as it was read.

    Attributes:
        group: what it is a field of, where there are several: "entitlement 2"; else empty.
        bit, bits: where it begins, counted from the start of section or payload, and its size.
        value: the number; None for bytes.
        hex: a digit for each four bits begun; None for what is not to be shown.
    """

    group: str
    name: str
    bit: int
    bits: int
    value: int | None
    hex: str | None
    meaning: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a box would not obey, and the byte at which it shows."""

    byte: int
    reason: str


@dataclass(frozen=True, slots=True)
class Dissection:
    """The fields in order, as far as they could be read, and what is wrong with them."""

    fields: tuple[Field, ...]
    faults: tuple[Fault, ...]


class _ShortError(Exception):
    """The bytes end within a field."""


class _Reader:
    """Takes field after field off the front."""

    def __init__(self, data: bytes) -> None:
        self.fields: list[Field] = []
        self.faults: list[Fault] = []
        self.group = ""
        self._data = data
        self._bit = 0

    @property
    def byte(self) -> int:
        """Where the next field begins."""
        return self._bit // 8

    @property
    def left(self) -> int:
        """How many bytes are still there."""
        return len(self._data) - self.byte

    def number(self, name: str, bits: int, meaning: Callable[[int], str]) -> int:
        """A field of that many bits; raises _ShortError."""
        end = self._bit + bits
        if end > 8 * len(self._data):
            self._ends_within(name, (bits + 7) // 8)
        last = (end + 7) // 8
        value = int.from_bytes(self._data[self.byte : last]) >> (8 * last - end)
        value &= (1 << bits) - 1
        self._add(name, bits, value, f"{value:0{(bits + 3) // 4}x}", meaning(value))
        return value

    def octets(self, name: str, size: int, meaning: str) -> None:
        """A field of so many bytes; raises _ShortError."""
        self._add(name, 8 * size, None, self._take(name, size).hex(), meaning)

    def hidden(self, name: str, size: int, meaning: str) -> None:
        """The same, of what is not to be shown."""
        self._take(name, size)
        self._add(name, 8 * size, None, None, meaning)

    def text(self, name: str) -> None:
        """The rest, as UTF-8."""
        value = self._take(name, self.left)
        try:
            value.decode()
        except UnicodeDecodeError as error:
            self.fault(self.byte + error.start, f"{name} is not UTF-8")
        shown = value.decode(errors="backslashreplace")
        self._add(name, 8 * len(value), None, value.hex(), repr(shown))

    def fault(self, byte: int, reason: str) -> None:
        """Note what is wrong."""
        self.faults.append(Fault(byte, reason))

    def done(self) -> Dissection:
        """What was found."""
        return Dissection(tuple(self.fields), tuple(self.faults))

    def _take(self, name: str, size: int) -> bytes:
        if size > self.left:
            self._ends_within(name, size)
        return self._data[self.byte : self.byte + size]

    def _add(self, name: str, bits: int, value: int | None, shown: str | None, text: str) -> None:
        self.fields.append(Field(self.group, name, self._bit, bits, value, shown, text))
        self._bit += bits

    def _ends_within(self, name: str, size: int) -> NoReturn:
        self.fault(self.byte, f"ends with {self.left} of {size} bytes of {name}")
        raise _ShortError


def dissect_section(section: bytes) -> Dissection:
    """Read a section; what lies behind a fault is read as far as it can be made out."""
    reader = _Reader(section)
    with suppress(_ShortError):  # noted as a fault
        _read_section(reader, len(section))
    return reader.done()


def _read_section(reader: _Reader, size: int) -> None:
    table_id = reader.number("table_id", 8, _table)
    if table_id != TABLE_ID:
        reader.fault(0, f"table_id 0x{table_id:02X}, not 0x{TABLE_ID:02X}: a box ignores it")
    if reader.number("section_syntax_indicator", 1, lambda one: "long" if one else "short, no CRC"):
        reader.fault(1, "section_syntax_indicator is 1: 0 is due")
    reader.number("reserved", 3, lambda _: "")
    length = reader.number("section_length", 12, lambda length: f"{length} bytes follow")
    if length != size - 3:
        reader.fault(1, f"section_length announces {3 + length} bytes, there are {size}")
    elif length > _MAX_SECTION_LENGTH:
        reader.fault(1, f"section_length {length} is over {_MAX_SECTION_LENGTH}")
    header = _read_header(reader) if table_id == TABLE_ID else None
    if header is not None:
        kind, part = header
        if part == 1:
            reader.octets("wrapped DEK", WRAPPED_BYTES, "AES Key Wrap (RFC 3394) of the data key")
        sealed = max(3 + length - reader.byte - TAG_BYTES, 0)
        there = min(sealed, reader.left)
        meaning = f"AES-128-GCM, {there} bytes: {kind.name.lower()}"
        reader.octets(
            "ciphertext", there, meaning if there == sealed else f"{there} of {sealed} bytes"
        )
        reader.octets("tag", TAG_BYTES, "of header and ciphertext")
    if reader.left:
        reader.octets("not read", reader.left, f"{reader.left} bytes")


def _read_header(reader: _Reader) -> tuple[Kind, int] | None:
    """From address to number; kind and part, None if what follows cannot be made out."""
    before = len(reader.faults)
    if not reader.number("address", 40, lambda address: f"device {address}"):
        reader.fault(HEADER_BYTES - 13, "address 0 is no box")
    version = reader.number("version", 4, lambda version: f"format version {version}")
    if version != FORMAT_VERSION:
        reader.fault(8, f"format version {version} is not known")
    kind = reader.number("kind", 4, _kind_name)
    if kind not in tuple(Kind):
        reader.fault(8, f"kind {kind} is not known")
    part = reader.number("part", 4, str)
    parts = reader.number("parts", 4, lambda parts: f"of {parts}")
    if not 1 <= part <= parts:
        reader.fault(9, f"part {part} of {parts}")
    elif parts > 1 and kind != Kind.STATE:
        reader.fault(9, f"{parts} parts: only a state has more than one")
    is_known = len(reader.faults) == before
    reader.number("epoch", 16, lambda epoch: f"key epoch {epoch}")
    reader.number("number", 32, lambda number: _number(kind, number))
    return (Kind(kind), part) if is_known else None


def dissect_payload(kind: Kind, payload: bytes) -> Dissection:
    """Read an opened payload. Product keys, and what may hold one, are not shown."""
    reader = _Reader(payload)
    with suppress(_ShortError):  # noted as a fault
        _PAYLOADS[kind](reader)
    return reader.done()


def _read_state(reader: _Reader) -> None:
    status = reader.number("status", 8, lambda status: _STATUS.get(status, "not known"))
    if status not in _STATUS:
        reader.fault(0, f"status {status} is not known")
    reader.number("UTC", 32, lambda utc: f"sealed {_time(utc)}")
    count = 0
    while reader.left:
        reader.group = ""
        start = reader.byte
        tlv_type = reader.number("TLV type", 8, _tlv)
        length = reader.number("TLV length", 8, lambda length: f"{length} bytes")
        if length > reader.left:
            reader.fault(
                start, f"a TLV of {length} bytes runs over the end, {reader.left} are left"
            )
            return
        size = RECORD_BYTES.get(tlv_type)
        if size is None:
            reader.hidden("TLV value", length, "a box skips it; not shown")
        elif length % size:
            reader.fault(start, f"TLV 0x{tlv_type:02x} holds records of {size} bytes, not {length}")
            return
        else:
            for _ in range(length // size):
                count += 1
                reader.group = f"entitlement {count}"
                _read_record(reader, tlv_type)


def _read_record(reader: _Reader, tlv_type: int) -> None:
    reader.number("product_id", 16, lambda product_id: f"product {product_id}")
    reader.number("product epoch", 8, lambda epoch: f"epoch {epoch} modulo 256")
    if tlv_type == TLV_LATER:
        reader.number("start", 32, lambda start: f"from {_time(start)}")
    reader.number(
        "end", 32, lambda end: "no end" if end == OPEN_END else f"until before {_time(end)}"
    )
    reader.hidden("key", PRODUCT_KEY_BYTES, "never shown")


def _read_message(reader: _Reader) -> None:
    segment = reader.number("segment", 8, str)
    segments = reader.number("segments", 8, lambda segments: f"of {segments}")
    if not 1 <= segment <= segments:
        reader.fault(0, f"segment {segment} of {segments}")
    reader.number("duration", 16, lambda s: f"{s} s on the screen" if s else "until withdrawn")
    reader.number("position", 8, lambda at: _POSITIONS[at if at < len(_POSITIONS) else 0])
    reader.number("priority", 8, lambda priority: f"{priority} of 255")
    reader.number("expiry", 32, lambda expiry: f"dropped from {_time(expiry)} on")
    reader.text("text")


def _read_withdrawal(reader: _Reader) -> None:
    reader.number("expiry", 32, lambda expiry: f"remembered until {_time(expiry)}")
    if reader.left:
        reader.fault(reader.byte, f"{reader.left} bytes too many")


_PAYLOADS: dict[Kind, Callable[[_Reader], None]] = {
    Kind.STATE: _read_state,
    Kind.MESSAGE: _read_message,
    Kind.WITHDRAWAL: _read_withdrawal,
}


def _table(table_id: int) -> str:
    if table_id == TABLE_ID:
        return "EMM for one box"
    reserved = _RESERVED_TABLE_IDS.get(table_id)
    return f"reserved for {reserved} EMMs" if reserved else "no EMM of this format"


def _kind_name(kind: int) -> str:
    return Kind(kind).name.lower() if kind in tuple(Kind) else "not known"


def _number(kind: int, number: int) -> str:
    if kind == Kind.STATE:
        return f"sequence; as a time {_time(number)}"
    return f"message id {number}"


def _tlv(tlv_type: int) -> str:
    return {TLV_IN_FORCE: "entitlements in force", TLV_LATER: "entitlements that start later"}.get(
        tlv_type, "not known"
    )


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"
