"""Payload to sealed sections and back (docs/emm-format.md, "Envelope")."""

import struct
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from itertools import accumulate, chain, repeat
from typing import NamedTuple, Self

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from numpy.typing import NDArray

from portcullis.emm.errors import EmmFormatError, EmmIntegrityError, EmmTooLargeError
from portcullis.emm.layout import Kind

TABLE_ID = 0x82
FORMAT_VERSION = 1
DEK_BYTES = 16
MAX_ADDRESS = 2**40 - 1
MAX_PARTS = 15

HEADER_BYTES = 16
_NONCE_BYTES = 12
WRAPPED_BYTES = 24
TAG_BYTES = 16
# Payload of part 1, which carries the wrapped DEK, and of every other part:
_PACKET_SHARES = (127, 151)  # in 183 bytes: 188 − packet header 4 − pointer_field 1
_SECTION_SHARES = (200, 224)  # in 256 bytes, the most of a CA_message_section (ETR 289)
_MAX_EPOCH, _MAX_NUMBER = 2**16 - 1, 2**32 - 1


@dataclass(frozen=True, slots=True)
class EmmHeader:
    """The 16 bytes that open every part; `number` is a sequence or a message id."""

    address: int
    kind: Kind
    part: int
    parts: int
    epoch: int
    number: int

    @classmethod
    def from_section(cls, section: bytes) -> Self:
        """Read the header of a whole section; EmmFormatError if it is not one of ours."""
        if len(section) < HEADER_BYTES or section[0] != TABLE_ID:
            raise EmmFormatError("not a unique-address EMM: table_id 0x82 and 16 bytes are due")
        if int.from_bytes(section[1:3], "big") & 0x0FFF != len(section) - 3:
            raise EmmFormatError("section_length does not match the section")
        version, kind = section[8] >> 4, section[8] & 0x0F
        part, parts = section[9] >> 4, section[9] & 0x0F
        if version != FORMAT_VERSION or kind not in tuple(Kind):
            raise EmmFormatError(f"EMM version {version} kind {kind} is not known")
        if not 1 <= part <= parts:
            raise EmmFormatError(f"part {part} of {parts}")
        return cls(
            address=int.from_bytes(section[3:8], "big"),
            kind=Kind(kind),
            part=part,
            parts=parts,
            epoch=int.from_bytes(section[10:12], "big"),
            number=int.from_bytes(section[12:16], "big"),
        )


# The header, then the nonce of the same part, which is never on air.
_HEADER_AND_NONCE = np.dtype(
    [
        ("table_id", "u1"),
        ("length", ">u2"),
        ("address", ">u4"),
        ("address_low", "u1"),
        ("version_kind", "u1"),
        ("part_parts", "u1"),
        ("epoch", ">u2"),
        ("number", ">u4"),
        ("nonce_address", ">u4"),
        ("nonce_address_low", "u1"),
        ("nonce_epoch", ">u2"),
        ("nonce_number", ">u4"),
        ("nonce_part", "u1"),
    ]
)


_HEAD = np.dtype([("header", f"V{HEADER_BYTES}"), ("nonce", f"V{_NONCE_BYTES}")])
_DEK = np.dtype(f"V{DEK_BYTES}")
_SHA256 = SHA256()
_EXTRACT = HMAC(bytes(32), _SHA256)
_KEK_INFO = b"portcullis emm kek v1"
# The last byte counts the blocks of the expansion (RFC 5869 2.3): 32 bytes are one block's.
_EXPANSION = np.dtype(
    [
        ("info", f"V{len(_KEK_INFO)}"),
        ("ca_system_id", ">u2"),
        ("address", "u1"),
        ("address_low", ">u4"),
        ("epoch", ">u2"),
        ("block", "u1"),
    ]
)


def derive_kek(device_key: bytes, ca_system_id: int, address: int, epoch: int) -> bytes:
    """The box's key encryption key for one epoch: 32 bytes (HKDF, RFC 5869)."""
    return expand_kek(device_key, kek_expansion(ca_system_id, address, epoch))


def kek_expansion(ca_system_id: int, address: int, epoch: int) -> bytes:
    """What `expand_kek` takes for a box and an epoch; OverflowError out of range."""
    return (
        _KEK_INFO
        + ca_system_id.to_bytes(2, "big")
        + address.to_bytes(5, "big")
        + epoch.to_bytes(2, "big")
        + b"\1"
    )


def kek_expansions(
    ca_system_id: int, addresses: NDArray[np.uint64], epochs: NDArray[np.uint32]
) -> list[bytes]:
    """As `kek_expansion`, of many boxes; all must be `in_range`."""
    rows = np.empty(len(addresses), _EXPANSION)
    rows["info"] = np.void(_KEK_INFO)
    rows["ca_system_id"] = ca_system_id
    rows["address"], rows["address_low"] = addresses >> 32, addresses & 0xFFFFFFFF
    rows["epoch"] = epochs
    rows["block"] = 1
    expansions: list[bytes] = rows.view(f"V{_EXPANSION.itemsize}").tolist()
    return expansions


def expand_kek(device_key: bytes, expansion: bytes) -> bytes:
    """The KEK for the box and epoch that `expansion` names; as `derive_kek`."""
    # RFC 5869: without a salt the extraction's key is zeros.
    extract = _EXTRACT.copy()
    extract.update(device_key)
    expand = HMAC(extract.finalize(), _SHA256)
    expand.update(expansion)
    return expand.finalize()


def split_payload(payload: bytes) -> Sequence[bytes]:
    """Cut a payload into the shares of its parts, one packet each where fifteen will do."""
    first, rest = _PACKET_SHARES if len(payload) <= _most(_PACKET_SHARES) else _SECTION_SHARES
    return [payload[:first], *(payload[i : i + rest] for i in range(first, len(payload), rest))]


def _most(shares: tuple[int, int]) -> int:
    """The longest payload that a set holds."""
    return shares[0] + (MAX_PARTS - 1) * shares[1]


class EmmSet(NamedTuple):
    """A payload, where it goes and under which key: made and checked by `set_of`."""

    kek: bytes
    address: int
    kind: int
    epoch: int
    number: int
    payload: bytes


def set_of(
    kek: bytes, *, address: int, kind: Kind, epoch: int, number: int, payload: bytes
) -> EmmSet:
    """Prepare a payload for `seal_sets`.

    Raises EmmTooLargeError, and OverflowError for a value that does not fit its field.
    """
    if not (
        0 <= address <= MAX_ADDRESS and 0 <= epoch <= _MAX_EPOCH and 0 <= number <= _MAX_NUMBER
    ):
        raise OverflowError(f"address {address}, epoch {epoch} or number {number}")
    if len(payload) > _most(_SECTION_SHARES):
        raise EmmTooLargeError(f"a payload of {len(payload)} bytes does not fit one set of EMMs")
    return EmmSet(kek, address, kind, epoch, number, payload)


class EmmColumns(NamedTuple):
    """Many payloads, where they go and under which keys, a place each; all must be `in_range`."""

    keks: Sequence[bytes]
    addresses: NDArray[np.int64]
    kinds: NDArray[np.int64]
    epochs: NDArray[np.int64]
    numbers: NDArray[np.int64]
    payloads: Sequence[bytes]


_NONE: tuple[tuple[()], ...] = ((),) * len(EmmColumns._fields)


def in_range(
    addresses: NDArray[np.uint64], epochs: NDArray[np.uint32], numbers: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Where the header has room for all three."""
    return (addresses <= MAX_ADDRESS) & (epochs <= _MAX_EPOCH) & (numbers <= _MAX_NUMBER)


def seal_sets(sets: Sequence[EmmSet], random: bytes) -> list[list[bytes]]:
    """Seal each set into its sections, part 1 first; as `seal_columns`."""
    keks, addresses, kinds, epochs, numbers, payloads = zip(*sets, strict=True) if sets else _NONE
    emms = EmmColumns(
        keks,
        _integers(addresses),
        _integers(kinds),
        _integers(epochs),
        _integers(numbers),
        payloads,
    )
    sections, parts = seal_columns(emms, random)
    ends = accumulate(parts)
    return [sections[end - n : end] for end, n in zip(ends, parts, strict=True)]


def seal_columns(emms: EmmColumns, random: bytes) -> tuple[list[bytes], list[int]]:
    """Seal each payload into the sections of its set, part 1 first.

    Returns the sections of the first set, of the second and so on, and how many each set has.
    `random` is DEK_BYTES fresh random bytes for each set, in order. A data encryption key seals
    one set and nothing else, ever: the nonce repeats between a state and a message of the same
    number. Raises ValueError if `random` is not that long.
    """
    keks, *columns, payloads = emms
    if len(random) != DEK_BYTES * len(payloads):
        raise ValueError(f"{len(random)} random bytes for {len(payloads)} sets")
    deks = np.frombuffer(random, _DEK).tolist()
    # All keys, then all ciphers, each used as soon as it is made: in the CPU's caches.
    wrapped = list(map(aes_key_wrap, keks, deks))
    ciphers: Iterable[AESGCM] = map(AESGCM, deks)
    shares: Sequence[bytes] = payloads
    sizes = _sizes(payloads)
    part = parts = counts = np.ones(len(payloads), np.int64)
    if sizes.max(initial=0) > _PACKET_SHARES[0]:
        cut = list(map(split_payload, payloads))
        counts = _sizes(cut)
        shares = list(chain.from_iterable(cut))
        sizes = _sizes(shares)
        ciphers = chain.from_iterable(map(repeat, ciphers, counts.tolist()))
        wrapped = [
            wrap
            for one, n in zip(wrapped, counts.tolist(), strict=True)
            for wrap in (one, *[b""] * (n - 1))
        ]
        columns = [np.repeat(one, counts) for one in columns]
        parts = np.repeat(counts, counts)
        part = np.arange(1, len(shares) + 1) - np.repeat(np.cumsum(counts) - counts, counts)
    heads = _headers_and_nonces(part, parts, sizes, columns).view(_HEAD)
    headers = heads["header"].tolist()
    sealed = map(AESGCM.encrypt, ciphers, heads["nonce"].tolist(), shares, headers)
    return list(map(b"".join, zip(headers, wrapped, sealed, strict=True))), counts.tolist()


def _sizes(values: Sequence[Sized]) -> NDArray[np.int64]:
    return np.fromiter(map(len, values), np.int64, len(values))


def _integers(values: Sequence[int]) -> NDArray[np.int64]:
    """The values as an array: three times as fast as `np.array`."""
    return np.frombuffer(struct.pack(f"{len(values)}q", *values), np.int64)


def _headers_and_nonces(
    part: NDArray[np.int64],
    parts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    columns: Sequence[NDArray[np.int64]],
) -> NDArray[np.void]:
    """Header and nonce of every part.

    All by part: its place in its set, of how many; `sizes` of the shares; and `columns` address,
    kind, epoch, number.
    """
    address, kind, epoch, number = columns
    rows = np.empty(len(sizes), _HEADER_AND_NONCE)
    rows["table_id"] = TABLE_ID
    # ETR 289: section_syntax_indicator 0, reserved bits 1, 12 bits of length
    sealed = sizes + (part == 1) * WRAPPED_BYTES + TAG_BYTES
    rows["length"] = 0x7000 | (HEADER_BYTES - 3 + sealed)
    rows["address"] = rows["nonce_address"] = address >> 8
    rows["address_low"] = rows["nonce_address_low"] = address & 0xFF
    rows["version_kind"] = FORMAT_VERSION << 4 | kind
    rows["part_parts"] = part << 4 | parts
    rows["epoch"] = rows["nonce_epoch"] = epoch
    rows["number"] = rows["nonce_number"] = number
    rows["nonce_part"] = part
    return rows


def seal_set(
    kek: bytes, dek: bytes, *, address: int, kind: Kind, epoch: int, number: int, payload: bytes
) -> list[bytes]:
    """Seal one payload; as `set_of` and `seal_sets`."""
    one = set_of(kek, address=address, kind=kind, epoch=epoch, number=number, payload=payload)
    return seal_sets([one], dek)[0]


def _nonce(section: bytes) -> bytes:
    """The GCM nonce of a received part."""
    return section[3:8] + section[10:16] + (section[9] >> 4).to_bytes()


def open_set(kek: bytes, sections: Sequence[bytes]) -> bytes:
    """Open the parts of one set, given in order; returns the payload.

    Raises EmmFormatError if they are no complete set, EmmIntegrityError if one does not open.
    """
    headers = [EmmHeader.from_section(section) for section in sections]
    if not headers or [h.part for h in headers] != list(range(1, headers[0].parts + 1)):
        raise EmmFormatError("not all parts of one set, in order")
    if len({(h.address, h.kind, h.parts, h.epoch, h.number) for h in headers}) > 1:
        raise EmmFormatError("parts of different sets")
    wrapped_end = HEADER_BYTES + WRAPPED_BYTES
    try:
        gcm = AESGCM(aes_key_unwrap(kek, sections[0][HEADER_BYTES:wrapped_end]))
        return b"".join(
            gcm.decrypt(
                _nonce(section),
                section[wrapped_end if header.part == 1 else HEADER_BYTES :],
                section[:HEADER_BYTES],
            )
            for header, section in zip(headers, sections, strict=True)
        )
    except (InvalidUnwrap, InvalidTag) as error:
        raise EmmIntegrityError("an EMM does not open with this key") from error
