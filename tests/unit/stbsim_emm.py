"""Builds EMMs from docs/emm-format.md, for tests of the boxes; owes nothing to any other code."""

import os
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

CA_SYSTEM_ID = 0xFFF0
DEVICE_ID = 1001
DEVICE_KEY = bytes(range(16))
NOW = 1_800_000_000
NO_END = 0xFFFFFFFF


def hkdf(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 without salt."""
    return HKDF(SHA256(), length, None, info).derive(key)


def seal(
    kind: int,
    number: int,
    payloads: list[bytes],
    *,
    epoch: int = 1,
    device_id: int = DEVICE_ID,
    device_key: bytes = DEVICE_KEY,
    ca_system_id: int = CA_SYSTEM_ID,
    version: int = 1,
) -> list[bytes]:
    """Seal one set, a section per payload."""
    address = device_id.to_bytes(5)
    info = b"portcullis emm kek v1" + ca_system_id.to_bytes(2) + address + epoch.to_bytes(2)
    dek = os.urandom(16)
    wrapped = aes_key_wrap(hkdf(device_key, info, 32), dek)
    sections = []
    for part, payload in enumerate(payloads, start=1):
        length = 16 + (24 if part == 1 else 0) + len(payload) + 16 - 3
        header = (
            b"\x82"
            + (0x7000 | length).to_bytes(2)
            + address
            + bytes((version << 4 | kind, part << 4 | len(payloads)))
            + struct.pack(">HI", epoch, number)
        )
        nonce = address + struct.pack(">HIB", epoch, number, part)
        sealed = AESGCM(dek).encrypt(nonce, payload, header)
        sections.append(header + (wrapped if part == 1 else b"") + sealed)
    return sections


def in_force(*records: tuple[int, int, int]) -> bytes:
    """TLV 0x01 of (product_id, product epoch, end); the key is sixteen times the product_id."""
    value = b"".join(struct.pack(">HBI", *record) + key_of(record[0]) for record in records)
    return bytes((1, len(value))) + value


def later(*records: tuple[int, int, int, int]) -> bytes:
    """TLV 0x02 of (product_id, product epoch, start, end)."""
    value = b"".join(struct.pack(">HBII", *record) + key_of(record[0]) for record in records)
    return bytes((2, len(value))) + value


def key_of(product_id: int) -> bytes:
    """The key the builders put into the records of a product."""
    return bytes((product_id & 0xFF,)) * 16


def state(
    number: int, *tlvs: bytes, status: int = 1, utc: int = NOW, parts: int = 1, epoch: int = 1
) -> list[bytes]:
    """A state for the box of this module, its payload cut into `parts`."""
    payload = struct.pack(">BI", status, utc) + b"".join(tlvs)
    size = -(-len(payload) // parts)
    return seal(
        1,
        number,
        [payload[at * size : (at + 1) * size] for at in range(parts)],
        epoch=epoch,
    )


def message(
    message_id: int,
    text: str,
    *,
    segment: int = 1,
    segments: int = 1,
    duration: int = 0,
    priority: int = 0,
    expiry: int = NOW + 1000,
) -> bytes:
    """One segment of a message for the box of this module."""
    fields = struct.pack(">BBHBBI", segment, segments, duration, 1, priority, expiry)
    return seal(2, message_id, [fields + text.encode()])[0]


def withdrawal(message_id: int, expiry: int = NOW + 1000) -> bytes:
    """A withdrawal for the box of this module."""
    return seal(3, message_id, [expiry.to_bytes(4)])[0]
