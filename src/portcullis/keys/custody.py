"""Sealed keys: AES-256-GCM under a master, bound to what the row says they are.

    sealed key  = nonce (12, random) ‖ ciphertext ‖ tag (16)
    AAD (31)    = "PK" ‖ purpose 1 ‖ owner 8 ‖ first_epoch 2 ‖ last_epoch 2 ‖ master_id 16

Numbers are big-endian, the master id is padded with zero bytes. A row that is
moved to another owner, given other epochs or another purpose, or named after
another master does not open (NIST SP 800-38D).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from portcullis.keys.errors import KeyNotOpenedError
from portcullis.keys.keyfile import MasterKey

_NONCE_BYTES = 12
_TAG_BYTES = 16
_MASTER_ID_BYTES = 16


class Purpose(IntEnum):
    """What a sealed key is for; the numbers are part of its authenticated data."""

    DEVICE = 1
    PRODUCT = 2


@dataclass(frozen=True, slots=True)
class KeyLabel:
    """What a row of `keys` says its key is: all of it is authenticated with the key."""

    purpose: Purpose
    owner: int
    first_epoch: int
    last_epoch: int
    master_id: str

    def to_bytes(self) -> bytes:
        """Lay the label out in 31 bytes; OverflowError or ValueError if a value cannot be."""
        master_id = self.master_id.encode("ascii")
        if len(master_id) > _MASTER_ID_BYTES:
            raise ValueError("a master_id has at most 16 characters")
        return b"".join(
            (
                b"PK",
                bytes((self.purpose,)),
                self.owner.to_bytes(8, "big"),
                self.first_epoch.to_bytes(2, "big"),
                self.last_epoch.to_bytes(2, "big"),
                master_id.ljust(_MASTER_ID_BYTES, b"\0"),
            )
        )


class Custody:
    """Seals under the current master, opens under any at hand."""

    def __init__(self, masters: Sequence[MasterKey]) -> None:
        self.master_ids = tuple(master.master_id for master in masters)
        self._ciphers = {master.master_id: AESGCM(master.key) for master in masters}

    def __repr__(self) -> str:
        """Show which masters are at hand, never a key."""
        return f"Custody({list(self.master_ids)}, ***)"

    @property
    def current_master_id(self) -> str:
        """The master that keys are sealed under."""
        return self.master_ids[0]

    def seal(
        self, key: bytes, purpose: Purpose, owner: int, first_epoch: int, last_epoch: int
    ) -> tuple[KeyLabel, bytes]:
        """Seal a key; returns its label and the blob. OverflowError for a value out of range."""
        label = KeyLabel(purpose, owner, first_epoch, last_epoch, self.current_master_id)
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._ciphers[label.master_id]
        return label, nonce + cipher.encrypt(nonce, key, label.to_bytes())

    def open(self, label: KeyLabel, blob: bytes) -> bytes:
        """Open a blob under what its row says it is; raises KeyNotOpenedError."""
        cipher = self._ciphers.get(label.master_id)
        if cipher is None:
            raise KeyNotOpenedError(f"sealed under master {label.master_id!r}, not at hand")
        if len(blob) < _NONCE_BYTES + _TAG_BYTES:
            raise KeyNotOpenedError("too short for a sealed key")
        try:
            return cipher.decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], label.to_bytes())
        except (InvalidTag, OverflowError, ValueError) as error:
            raise KeyNotOpenedError(
                f"the {label.purpose.name.lower()} key of {label.owner} does not open:"
                " moved, relabelled or not sealed here"
            ) from error
