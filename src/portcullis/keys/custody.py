"""Sealed keys: AES-256-GCM under a master, bound to what the row says they are.

    sealed key  = nonce (12, random) ‖ ciphertext ‖ tag (16)
    AAD (31)    = "PK" ‖ purpose 1 ‖ owner 8 ‖ first_epoch 2 ‖ last_epoch 2 ‖ master_id 16

Numbers are big-endian, the master id is padded with zero bytes. A row that is
moved to another owner, given other epochs or another purpose, or named after
another master does not open (NIST SP 800-38D).
"""

import os
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from portcullis.keys.errors import KeyNotOpenedError
from portcullis.keys.masters import Ciphers

_NONCE_BYTES = 12
_TAG_BYTES = 16
_MASTER_ID_BYTES = 16
_LABEL = struct.Struct(f">2sBQHH{_MASTER_ID_BYTES}s")  # pads with zero bytes

LABEL_BYTES = _LABEL.size
LABEL_OWNER = slice(3, 11)
"""Where the owner stands in a label that is laid out."""


class Purpose(IntEnum):
    """What a sealed key is for; the numbers are part of its authenticated data."""

    DEVICE = 1
    PRODUCT = 2
    IMPORT = 3


class KeyLabel(NamedTuple):
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
        try:
            return _LABEL.pack(
                b"PK", self.purpose, self.owner, self.first_epoch, self.last_epoch, master_id
            )
        except struct.error as error:
            raise OverflowError(str(error)) from error


class Custody:
    """Seals under the current master, opens under any at hand.

    Every call raises CustodyAwayError when the masters cannot be reached for now.
    """

    def __init__(self, ciphers: Ciphers) -> None:
        self._ciphers = ciphers

    def __repr__(self) -> str:
        """Show where the masters are, never a key."""
        return f"Custody({self._ciphers!r})"

    @property
    def current_master_id(self) -> str:
        """The master that keys are sealed under."""
        return next(iter(self._ciphers.masters()))

    def seal(
        self, key: bytes, purpose: Purpose, owner: int, first_epoch: int, last_epoch: int
    ) -> tuple[KeyLabel, bytes]:
        """Seal a key; returns its label and the blob. OverflowError for a value out of range."""
        label = KeyLabel(purpose, owner, first_epoch, last_epoch, self.current_master_id)
        nonce = os.urandom(_NONCE_BYTES)
        return label, nonce + self._ciphers.encrypt(label.master_id, nonce, key, label.to_bytes())

    def open(self, label: KeyLabel, blob: bytes) -> bytes:
        """Open a blob under what its row says it is; raises KeyNotOpenedError."""
        try:
            return self._open(label.master_id, label.to_bytes(), blob)
        except (KeyNotOpenedError, OverflowError, ValueError) as error:
            raise KeyNotOpenedError(
                f"the {label.purpose.name.lower()} key of {label.owner} under master"
                f" {label.master_id[:_MASTER_ID_BYTES]!r} does not open: moved, relabelled, not"
                " sealed here, or the master is not at hand"
            ) from error

    def open_each(
        self, master_ids: Iterable[str], labels: Iterable[bytes], blobs: Iterable[bytes]
    ) -> list[bytes | None]:
        """Open many blobs, each under a label that is laid out; None for one that does not open."""
        keys = list[bytes | None]()
        for master_id, label, blob in zip(master_ids, labels, blobs, strict=True):
            try:
                keys.append(self._open(master_id, label, blob))
            except (KeyNotOpenedError, ValueError):
                keys.append(None)
        return keys

    def _open(self, master_id: str, label: bytes, blob: bytes) -> bytes:
        if len(blob) < _NONCE_BYTES + _TAG_BYTES:
            raise KeyNotOpenedError("too short for a sealed key")
        return self._ciphers.decrypt(master_id, blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], label)
