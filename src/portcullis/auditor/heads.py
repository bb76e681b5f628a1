"""Signed heads: how far each chain has come, under the auditor's own key."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from portcullis.runtime.chain import Line
from portcullis.runtime.config import ConfigError
from portcullis.runtime.files import write_durably

HEADS = "heads"
"""The chain of the heads themselves."""

KEY_CHANGE = "key_change"
"""In the last head of a key: its own 32 bytes and those of the key behind it, in hex."""

_CONTEXT = b"portcullis head\x00"
_RECORD = re.compile(
    rb'\{"seq":\d+,"record":\{"head":(\{.*\}),"key":"([0-9a-f]{16})","sig":"([A-Za-z0-9+/=]+)"\}',
    re.DOTALL,
)


@dataclass(frozen=True)
class Signer:
    """Signs with the auditor's key."""

    key: Ed25519PrivateKey

    @classmethod
    def load(cls, path: Path) -> "Signer":
        """Read the key, or make it, mode 0600; raises ConfigError."""
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = Ed25519PrivateKey.generate()
            pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_durably(path, pem)
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"auditor.key_file: {path}: expected mode 0600")
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError) as error:
            raise ConfigError(f"auditor.key_file: {path}: not a PEM private key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"auditor.key_file: {path}: expected an Ed25519 key")
        return cls(key)

    @property
    def public(self) -> Ed25519PublicKey:
        """What others verify with."""
        return self.key.public_key()

    def record(self, seq: int, prev: bytes, statement: Mapping[str, object]) -> bytes:
        """The signed record of head number `seq`, after the head with the link `prev`."""
        placed = {"seq": seq, "prev": prev.hex(), **statement}
        said = json.dumps(placed, separators=(",", ":")).encode()
        signature = base64.b64encode(self.key.sign(_CONTEXT + said))
        return b'{"head":%s,"key":"%s","sig":"%s"}' % (
            said,
            key_id(self.public).encode(),
            signature,
        )


def read_head(line: Line, key: Ed25519PublicKey) -> dict[str, Any] | None:
    """The statement of a head; None where the signature is not the key's.

    It says itself, in `seq` and `prev`, where in the chain of heads it stands.
    """
    match = _RECORD.fullmatch(line.content)
    if match is None or match[2].decode() != key_id(key):
        return None
    try:
        key.verify(base64.b64decode(match[3]), _CONTEXT + match[1])
    except InvalidSignature:
        return None
    said: dict[str, Any] = json.loads(match[1])
    return said


def next_key_id(head: Mapping[str, Any]) -> str:
    """The name of the key that the head behind this record is to be signed with."""
    change = head["head"].get(KEY_CHANGE)
    return str(head["key"]) if change is None else key_id(key_of(change["to"]))


def key_of(raw: str) -> Ed25519PublicKey:
    """A public key from its 32 bytes in hex; raises ValueError."""
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(raw))


def key_id(key: Ed25519PublicKey) -> str:
    """What names a public key: 16 hex digits of its SHA-256."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def public_pem(key: Ed25519PublicKey) -> bytes:
    """The key as a file."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_public(path: Path) -> Ed25519PublicKey:
    """Read a public key; raises ConfigError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a PEM public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: expected an Ed25519 key")
    return key
