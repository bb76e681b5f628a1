"""State, message and withdrawal: values to payload bytes and back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from portcullis.emm.errors import EmmFormatError

OPEN_END = 0xFFFFFFFF
"""The `end` of an entitlement that has none."""

MAX_ENTITLEMENTS = 120
"""What fits a state set of fifteen 256-byte sections, all of them starting later."""

MAX_SEGMENTS = 255


class Kind(IntEnum):
    """What an EMM is, as its header says."""

    STATE = 1
    MESSAGE = 2
    WITHDRAWAL = 3


@dataclass(frozen=True, slots=True)
class EntitlementRecord:
    """One product's key and window. Times in Unix seconds; `starts_at` None: in force."""

    product_id: int
    epoch: int
    ends_at: int
    key: bytes = field(repr=False)
    starts_at: int | None = None


TLV_IN_FORCE = 0x01
TLV_LATER = 0x02
RECORD_BYTES = {TLV_IN_FORCE: 23, TLV_LATER: 27}
_MAX_VALUE_BYTES = {tlv_type: 255 // size * size for tlv_type, size in RECORD_BYTES.items()}
# By the number of records in one TLV.
_TLV_HEADS = {
    tlv_type: [bytes((tlv_type, length)) for length in range(0, 256, size)]
    for tlv_type, size in RECORD_BYTES.items()
}


def record_head(product_id: int, epoch: int) -> bytes:
    """What stands before the times of an entitlement's record; OverflowError out of range."""
    return product_id.to_bytes(2, "big") + (epoch % 256).to_bytes(1, "big")


def _record_bytes(record: EntitlementRecord) -> bytes:
    start = b"" if record.starts_at is None else record.starts_at.to_bytes(4, "big")
    head = record_head(record.product_id, record.epoch)
    return head + start + record.ends_at.to_bytes(4, "big") + record.key


def state_payload(
    utc: int, in_force: Sequence[bytes], later: Sequence[bytes], *, active: bool
) -> bytes:
    """The payload of a state from its records; OverflowError for a time out of its range."""
    return b"".join(
        (
            bytes((active,)),
            utc.to_bytes(4, "big"),
            _tlvs(TLV_IN_FORCE, b"".join(in_force)),
            _tlvs(TLV_LATER, b"".join(later)),
        )
    )


def _tlvs(tlv_type: int, records: bytes) -> bytes:
    """Records in as many TLVs as they need."""
    most = _MAX_VALUE_BYTES[tlv_type]
    values = [records[at : at + most] for at in range(0, len(records), most)]
    return b"".join([bytes((tlv_type, len(value))) + value for value in values])


RECORD = {
    TLV_IN_FORCE: np.dtype([("head", "V3"), ("ends_at", ">u4"), ("key", "V16")]),
    TLV_LATER: np.dtype([("head", "V3"), ("starts_at", ">u4"), ("ends_at", ">u4"), ("key", "V16")]),
}


def state_payloads(
    utc: int,
    active: Sequence[bool],
    in_force: tuple[Sequence[int], NDArray[np.void]],
    later: tuple[Sequence[int], NDArray[np.void]],
) -> list[bytes]:
    """The payloads of states, as `state_payload`.

    In force and later: how many of the records (RECORD) are each state's, and all records.
    """
    openings = [bytes((flag,)) + utc.to_bytes(4, "big") for flag in (False, True)]
    now = _tlvs_of(TLV_IN_FORCE, *in_force)
    if not later[1].size:
        return [openings[flag] + mine for flag, mine in zip(active, now, strict=True)]
    then = _tlvs_of(TLV_LATER, *later)
    return [
        openings[flag] + one + other for flag, one, other in zip(active, now, then, strict=True)
    ]


def _tlvs_of(tlv_type: int, counts: Sequence[int], records: NDArray[np.void]) -> Iterator[bytes]:
    """The TLVs of each state."""
    data, end = records.tobytes(), 0
    size, heads = RECORD_BYTES[tlv_type], _TLV_HEADS[tlv_type]
    for count in counts:
        start, end = end, end + count * size
        if 0 < count < len(heads):
            yield heads[count] + data[start:end]
        else:
            yield _tlvs(tlv_type, data[start:end])


def _record_from(tlv_type: int, data: bytes) -> EntitlementRecord:
    later = tlv_type == TLV_LATER
    rest = data[7:] if later else data[3:]
    return EntitlementRecord(
        product_id=int.from_bytes(data[0:2], "big"),
        epoch=data[2],
        starts_at=int.from_bytes(data[3:7], "big") if later else None,
        ends_at=int.from_bytes(rest[:4], "big"),
        key=rest[4:],
    )


@dataclass(frozen=True, slots=True)
class State:
    """Everything a box is entitled to, as of `utc` (Unix seconds)."""

    active: bool
    utc: int
    entitlements: tuple[EntitlementRecord, ...] = ()

    def to_payload(self) -> bytes:
        """Lay the state out; ValueError or OverflowError for a value out of its range."""
        records: dict[bool, list[bytes]] = {False: [], True: []}
        for one in self.entitlements:
            records[one.starts_at is not None].append(_record_bytes(one))
        return state_payload(self.utc, records[False], records[True], active=self.active)

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Read a state; EmmFormatError if it does not follow the layout."""
        if len(payload) < 5 or payload[0] > 1:  # noqa: PLR2004 (status 1 and UTC 4)
            raise EmmFormatError("a state starts with its status, 0 or 1, and four bytes of UTC")
        records: list[EntitlementRecord] = []
        at = 5
        while at < len(payload):
            head = payload[at : at + 2]
            value = payload[at + 2 : at + 2 + head[-1]]
            if len(head) < 2 or len(value) < head[1]:  # noqa: PLR2004 (type 1 and length 1)
                raise EmmFormatError("a TLV runs over the end of the state")
            size = RECORD_BYTES.get(head[0])
            if size is not None:
                if len(value) % size:
                    raise EmmFormatError(f"TLV {head[0]} holds records of {size} bytes")
                records += [
                    _record_from(head[0], value[i : i + size]) for i in range(0, len(value), size)
                ]
            at += 2 + len(value)
        return cls(bool(payload[0]), int.from_bytes(payload[1:5], "big"), tuple(records))


_MESSAGE_HEAD_BYTES = 10


@dataclass(frozen=True, slots=True)
class Message:
    """One segment of a text for the screen; `expires_at` in Unix seconds."""

    segment: int
    segments: int
    duration_s: int
    position: int
    priority: int
    expires_at: int
    text: str

    def to_payload(self) -> bytes:
        """Lay the segment out; OverflowError for a value out of its range."""
        return (
            bytes((self.segment, self.segments))
            + self.duration_s.to_bytes(2, "big")
            + bytes((self.position, self.priority))
            + self.expires_at.to_bytes(4, "big")
            + self.text.encode()
        )

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Read a segment; EmmFormatError if it does not follow the layout."""
        if len(payload) < _MESSAGE_HEAD_BYTES or not 1 <= payload[0] <= payload[1]:
            raise EmmFormatError("a message segment starts with its place and nine bytes more")
        try:
            text = payload[_MESSAGE_HEAD_BYTES:].decode()
        except UnicodeDecodeError as error:
            raise EmmFormatError("a message's text is UTF-8") from error
        return cls(
            segment=payload[0],
            segments=payload[1],
            duration_s=int.from_bytes(payload[2:4], "big"),
            position=payload[4],
            priority=payload[5],
            expires_at=int.from_bytes(payload[6:10], "big"),
            text=text,
        )


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Stop showing a message; `expires_at` in Unix seconds, as the message had it."""

    expires_at: int

    def to_payload(self) -> bytes:
        """Lay the withdrawal out."""
        return self.expires_at.to_bytes(4, "big")

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Read a withdrawal; EmmFormatError if it does not follow the layout."""
        if len(payload) != 4:  # noqa: PLR2004 (expiry 4)
            raise EmmFormatError("a withdrawal is its four bytes of expiry")
        return cls(int.from_bytes(payload, "big"))


SEGMENT_TEXT_BYTES = 117
"""Text that fits one packet: 183 − header 16 − wrapped DEK 24 − tag 16 − message head 10."""


def segment_text(text: str) -> tuple[str, ...]:
    """Cut a text between characters into shares of at most 117 bytes of UTF-8.

    Raises ValueError if it takes more than 255 segments.
    """
    shares: list[str] = []
    data = text.encode()
    while data:
        cut = min(SEGMENT_TEXT_BYTES, len(data))
        # A byte 10xxxxxx continues a character (RFC 3629 3): step back to its start.
        while cut < len(data) and data[cut] & 0xC0 == 0x80:  # noqa: PLR2004
            cut -= 1
        shares.append(data[:cut].decode())
        data = data[cut:]
    if len(shares) > MAX_SEGMENTS:
        raise ValueError(f"the text takes {len(shares)} segments, {MAX_SEGMENTS} at most")
    return tuple(shares) or ("",)
