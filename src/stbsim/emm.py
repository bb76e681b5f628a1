"""Reading and opening EMMs, as docs/emm-format.md lays them out byte by byte."""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

from stbsim.errors import IgnoredError, Reason

TABLE_ID = 0x82
NO_END = 0xFFFFFFFF
MAX_CHAIN_EPOCHS = 128

_VERSION = 1
_HEADER_SIZE = 16
_WRAPPED_DEK_SIZE = 24
_TAG_SIZE = 16
_MAX_SECTION_SIZE = 256
_STATE_FIXED = struct.Struct(">BI")
_IN_FORCE_TLV = 0x01
_LATER_TLV = 0x02
_IN_FORCE_RECORD = struct.Struct(">HBI16s")
_LATER_RECORD = struct.Struct(">HBII16s")
_MESSAGE_FIXED = struct.Struct(">BBHBBI")
_WITHDRAWAL = struct.Struct(">I")


class Kind(IntEnum):
    """What an EMM carries."""

    STATE = 1
    MESSAGE = 2
    WITHDRAWAL = 3


@dataclass(frozen=True, slots=True)
class Header:
    """The first 16 bytes of a part.

    Attributes:
        address: the box's device_id, 40 bits.
        kind: state, message or withdrawal.
        part: 1 to `parts`.
        parts: 1 to 15.
        epoch: key epoch of the box, 16 bits.
        number: 32 bits: the sequence of a state, else the message id.
    """

    address: int
    kind: Kind
    part: int
    parts: int
    epoch: int
    number: int

    @classmethod
    def of(cls, section: bytes) -> Self:
        """Read the header of a section of table_id 0x82.

        Raises:
            IgnoredError: malformed, other version, other kind.
        """
        if not _HEADER_SIZE + _TAG_SIZE <= len(section) <= _MAX_SECTION_SIZE:
            raise IgnoredError(Reason.MALFORMED)
        if section[8] >> 4 != _VERSION:
            raise IgnoredError(Reason.OTHER_VERSION)
        try:
            kind = Kind(section[8] & 0x0F)
        except ValueError:
            raise IgnoredError(Reason.OTHER_KIND) from None
        part, parts = section[9] >> 4, section[9] & 0x0F
        if not 1 <= part <= parts or (kind is not Kind.STATE and parts != 1):
            raise IgnoredError(Reason.MALFORMED)
        return cls(
            address=int.from_bytes(section[3:8]),
            kind=kind,
            part=part,
            parts=parts,
            epoch=int.from_bytes(section[10:12]),
            number=int.from_bytes(section[12:16]),
        )


def _hkdf(key: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(key)


def derive_kek(device_key: bytes, ca_system_id: int, address: int, epoch: int) -> bytes:
    """Return the 32 bytes that wrap the DEKs of one box in one key epoch."""
    scope = ca_system_id.to_bytes(2) + address.to_bytes(5) + epoch.to_bytes(2)
    return _hkdf(device_key, b"portcullis emm kek v1" + scope, 32)


def derive_product_key(key: bytes, product_id: int, epoch: int, wanted_epoch: int) -> bytes | None:
    """Walk down the chain from the 16 bytes of `epoch`; None if `wanted_epoch` is not below."""
    distance = (epoch - wanted_epoch) % 256
    if distance >= MAX_CHAIN_EPOCHS:
        return None
    for step in range(1, distance + 1):
        scope = product_id.to_bytes(2) + bytes(((epoch - step) % 256,))
        key = _hkdf(key, b"portcullis product chain v1" + scope, 16)
    return key


def unwrap_dek(section: bytes, kek: bytes) -> AESGCM:
    """Take the DEK out of a part 1.

    Raises:
        IgnoredError: too short, or the wrap's integrity check failed.
    """
    end = _HEADER_SIZE + _WRAPPED_DEK_SIZE
    if len(section) < end + _TAG_SIZE:
        raise IgnoredError(Reason.MALFORMED)
    try:
        return AESGCM(aes_key_unwrap(kek, section[_HEADER_SIZE:end]))
    except InvalidUnwrap:
        raise IgnoredError(Reason.UNWRAP_FAILED) from None


def open_part(section: bytes, header: Header, dek: AESGCM) -> bytes:
    """Return the payload of one part.

    Raises:
        IgnoredError: the tag does not fit.
    """
    start = _HEADER_SIZE + (_WRAPPED_DEK_SIZE if header.part == 1 else 0)
    nonce = section[3:8] + section[10:16] + bytes((header.part,))
    try:
        return dek.decrypt(nonce, section[start:], section[:_HEADER_SIZE])
    except InvalidTag:
        raise IgnoredError(Reason.TAG_FAILED) from None


@dataclass(frozen=True, slots=True)
class Entitlement:
    """One record of a state: a product, its window and the key of its newest epoch.

    Attributes:
        product_id: 16 bits.
        epoch: product epoch of `key`, modulo 256.
        starts_at: seconds; 0 where the start is past.
        ends_at: seconds; `NO_END` for none.
        key: 16 bytes, never printed.
    """

    product_id: int
    epoch: int
    starts_at: int
    ends_at: int
    key: bytes = field(repr=False)

    def ended(self, time: int) -> bool:
        """Say whether the window is over at `time`."""
        return self.ends_at != NO_END and self.ends_at <= time

    def in_force(self, time: int) -> bool:
        """Say whether start ≤ time < end."""
        return self.starts_at <= time and not self.ended(time)


@dataclass(frozen=True, slots=True)
class State:
    """Everything a box is entitled to.

    Attributes:
        active: False: removed.
        utc: the head-end's time when it sealed, seconds.
        entitlements: empty when removed.
    """

    active: bool
    utc: int
    entitlements: tuple[Entitlement, ...]

    @classmethod
    def of(cls, payload: bytes) -> Self:
        """Read the joined payloads of a set; raises IgnoredError (malformed)."""
        if len(payload) < _STATE_FIXED.size:
            raise IgnoredError(Reason.MALFORMED)
        status, utc = _STATE_FIXED.unpack_from(payload)
        if status not in (0, 1):
            raise IgnoredError(Reason.MALFORMED)
        entitlements: list[Entitlement] = []
        at = _STATE_FIXED.size
        while at < len(payload):
            value = payload[at + 2 : at + 2 + payload[at + 1]] if at + 1 < len(payload) else None
            if value is None or len(value) != payload[at + 1]:
                raise IgnoredError(Reason.MALFORMED)
            entitlements += _read_records(payload[at], value)
            at += 2 + len(value)
        return cls(bool(status), utc, tuple(entitlements) if status else ())


def _read_records(tlv_type: int, value: bytes) -> list[Entitlement]:
    if tlv_type == _IN_FORCE_TLV:
        _check_multiple(value, _IN_FORCE_RECORD)
        return [
            Entitlement(product_id, epoch, 0, end, key)
            for product_id, epoch, end, key in _IN_FORCE_RECORD.iter_unpack(value)
        ]
    if tlv_type == _LATER_TLV:
        _check_multiple(value, _LATER_RECORD)
        return [Entitlement(*record) for record in _LATER_RECORD.iter_unpack(value)]
    return []


def _check_multiple(value: bytes, record: struct.Struct) -> None:
    if len(value) % record.size:
        raise IgnoredError(Reason.MALFORMED)


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a text for the screen.

    Attributes:
        segment: 1 to `segments`.
        segments: 1 to 255.
        duration: seconds on screen, 0 until withdrawn.
        position: 0 to 255.
        priority: 0 lowest to 255 highest.
        expiry: seconds.
        text: this segment's share.
    """

    segment: int
    segments: int
    duration: int
    position: int
    priority: int
    expiry: int
    text: str

    @classmethod
    def of(cls, payload: bytes) -> Self:
        """Read a message's payload; raises IgnoredError (malformed)."""
        try:
            segment, segments, duration, position, priority, expiry = _MESSAGE_FIXED.unpack_from(
                payload
            )
            text = payload[_MESSAGE_FIXED.size :].decode()
        except (struct.error, UnicodeDecodeError):
            raise IgnoredError(Reason.MALFORMED) from None
        if not 1 <= segment <= segments:
            raise IgnoredError(Reason.MALFORMED)
        return cls(segment, segments, duration, position, priority, expiry, text)


def read_withdrawal(payload: bytes) -> int:
    """Return the expiry of a withdrawal, seconds; raises IgnoredError (malformed)."""
    if len(payload) != _WITHDRAWAL.size:
        raise IgnoredError(Reason.MALFORMED)
    return int.from_bytes(payload)
