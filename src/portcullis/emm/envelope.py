"""Payload to sealed sections and back (docs/emm-format.md, "Envelope")."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from portcullis.emm.errors import EmmFormatError, EmmIntegrityError, EmmTooLargeError
from portcullis.emm.layout import Kind

TABLE_ID = 0x82
FORMAT_VERSION = 1
DEK_BYTES = 16
MAX_ADDRESS = 2**40 - 1
MAX_PARTS = 15

_HEADER_BYTES = 16
_WRAPPED_BYTES = 24
_TAG_BYTES = 16
_MAX_SECTION_BYTES = 256  # ETR 289: a CA_message_section is at most 256 bytes
_PACKET_SECTION_BYTES = 183  # 188 − packet header 4 − pointer_field 1


@dataclass(frozen=True, slots=True)
class EmmHeader:
    """The 16 bytes that open every part; `number` is a sequence or a message id."""

    address: int
    kind: Kind
    part: int
    parts: int
    epoch: int
    number: int

    def to_bytes(self, section_bytes: int) -> bytes:
        """Lay the header of a section of `section_bytes` bytes in all out."""
        return b"".join(
            (
                bytes((TABLE_ID,)),
                # ETR 289: section_syntax_indicator 0, reserved bits 1, 12 bits of length
                (0x7000 | (section_bytes - 3)).to_bytes(2, "big"),
                self.address.to_bytes(5, "big"),
                bytes((FORMAT_VERSION << 4 | self.kind, self.part << 4 | self.parts)),
                self.epoch.to_bytes(2, "big"),
                self.number.to_bytes(4, "big"),
            )
        )

    @classmethod
    def from_section(cls, section: bytes) -> Self:
        """Read the header of a whole section; EmmFormatError if it is not one of ours."""
        if len(section) < _HEADER_BYTES or section[0] != TABLE_ID:
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

    def nonce(self) -> bytes:
        """The 12 bytes of GCM nonce of this part: never on air."""
        return b"".join(
            (
                self.address.to_bytes(5, "big"),
                self.epoch.to_bytes(2, "big"),
                self.number.to_bytes(4, "big"),
                bytes((self.part,)),
            )
        )


def derive_kek(device_key: bytes, ca_system_id: int, address: int, epoch: int) -> bytes:
    """The box's key encryption key for one epoch: 32 bytes (HKDF, RFC 5869)."""
    info = (
        b"portcullis emm kek v1"
        + ca_system_id.to_bytes(2, "big")
        + address.to_bytes(5, "big")
        + epoch.to_bytes(2, "big")
    )
    return HKDF(SHA256(), 32, None, info).derive(device_key)


def split_payload(payload: bytes) -> list[bytes]:
    """Cut a payload into the shares of its parts, one packet each where fifteen will do.

    Raises EmmTooLargeError if fifteen sections of 256 bytes do not hold it.
    """
    for section_bytes in (_PACKET_SECTION_BYTES, _MAX_SECTION_BYTES):
        rest = section_bytes - _HEADER_BYTES - _TAG_BYTES
        first = rest - _WRAPPED_BYTES
        shares = [payload[:first]]
        shares += [payload[i : i + rest] for i in range(first, len(payload), rest)]
        if len(shares) <= MAX_PARTS:
            return shares
    raise EmmTooLargeError(f"a payload of {len(payload)} bytes does not fit one set of EMMs")


def seal_set(
    kek: bytes, dek: bytes, *, address: int, kind: Kind, epoch: int, number: int, payload: bytes
) -> list[bytes]:
    """Seal a payload into its sections, part 1 first.

    `dek` is 16 fresh random bytes that seal nothing else, ever: the nonce repeats between a
    state and a message of the same number. Raises EmmTooLargeError.
    """
    shares = split_payload(payload)
    gcm = AESGCM(dek)
    sections: list[bytes] = []
    for part, share in enumerate(shares, start=1):
        wrapped = aes_key_wrap(kek, dek) if part == 1 else b""
        header = EmmHeader(address, kind, part, len(shares), epoch, number)
        size = _HEADER_BYTES + len(wrapped) + len(share) + _TAG_BYTES
        aad = header.to_bytes(size)
        sections.append(aad + wrapped + gcm.encrypt(header.nonce(), share, aad))
    return sections


def open_set(kek: bytes, sections: Sequence[bytes]) -> bytes:
    """Open the parts of one set, given in order; returns the payload.

    Raises EmmFormatError if they are no complete set, EmmIntegrityError if one does not open.
    """
    headers = [EmmHeader.from_section(section) for section in sections]
    if not headers or [h.part for h in headers] != list(range(1, headers[0].parts + 1)):
        raise EmmFormatError("not all parts of one set, in order")
    if len({(h.address, h.kind, h.parts, h.epoch, h.number) for h in headers}) > 1:
        raise EmmFormatError("parts of different sets")
    wrapped_end = _HEADER_BYTES + _WRAPPED_BYTES
    try:
        gcm = AESGCM(aes_key_unwrap(kek, sections[0][_HEADER_BYTES:wrapped_end]))
        return b"".join(
            gcm.decrypt(
                header.nonce(),
                section[wrapped_end if header.part == 1 else _HEADER_BYTES :],
                section[:_HEADER_BYTES],
            )
            for header, section in zip(headers, sections, strict=True)
        )
    except (InvalidUnwrap, InvalidTag) as error:
        raise EmmIntegrityError("an EMM does not open with this key") from error
