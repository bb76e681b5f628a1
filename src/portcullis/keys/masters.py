"""Where master keys can be: what a file and a PKCS#11 token have in common.

A master is *current* (keys are sealed under it), *older* (it only opens), or
*waiting* (made, but not in use until every encryptor has it). A retired one
opens nothing, but can be recalled for a backup that was sealed under it.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from portcullis.keys.errors import KeyNotOpenedError

MASTER_KEY_BYTES = 32
MASTER_ID = re.compile(r"[A-Za-z0-9_.-]{1,16}")


class MasterState(Enum):
    """What a master at hand is used for."""

    CURRENT = "current"
    OLDER = "older"
    WAITING = "waiting"


class Ciphers(Protocol):
    """AES-256-GCM under masters that are named and never shown (NIST SP 800-38D).

    Raises CustodyAwayError when the masters cannot be reached for now.
    """

    def masters(self) -> Mapping[str, MasterState]:
        """Every master at hand by its id, the current one first."""

    def encrypt(self, master_id: str, nonce: bytes, data: bytes, label: bytes) -> bytes:
        """Ciphertext ‖ tag (16); raises KeyNotOpenedError if the master is not at hand."""

    def decrypt(self, master_id: str, nonce: bytes, data: bytes, label: bytes) -> bytes:
        """The plaintext; raises KeyNotOpenedError."""


class MasterStore(Ciphers, Protocol):
    """A place that keeps masters. Each change is done once, however often it is asked for.

    Raises MasterError for what cannot be done, CustodyAwayError, KeyFileError or TokenError.
    """

    def refresh(self) -> None:
        """See what others have changed in the same place."""

    def check(self) -> str | None:
        """Why masters cannot be used now; None when they can."""

    def make(self, master_id: str) -> None:
        """Have a random master of this name: current if it is the first, else waiting."""

    def use(self, master_id: str) -> None:
        """Make a master at hand the current one; the one before becomes older."""

    def retire(self, master_id: str) -> None:
        """Put a master that is not current aside: it opens nothing from now on."""

    def recall(self, master_id: str) -> None:
        """Have a retired master at hand again, as an older one."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A master key in clear, its name (1 to 16 letters, digits, `_`, `.`, `-`) and its use."""

    master_id: str
    key: bytes
    waiting: bool = False

    def __repr__(self) -> str:
        """Show the name, never the key."""
        return f"MasterKey({self.master_id!r}, ***)"


class KeyRing:
    """Masters in this process's memory: the current one first, waiting ones marked."""

    def __init__(self, masters: Sequence[MasterKey]) -> None:
        self.keys = tuple(masters)
        self._ciphers = {master.master_id: AESGCM(master.key) for master in masters}
        states = {
            master.master_id: MasterState.WAITING if master.waiting else MasterState.OLDER
            for master in masters
        }
        self._states = states | {masters[0].master_id: MasterState.CURRENT}

    def __repr__(self) -> str:
        """Show which masters are at hand, never a key."""
        return f"KeyRing({list(self._ciphers)}, ***)"

    def masters(self) -> Mapping[str, MasterState]:
        """See `Ciphers`."""
        return self._states

    def encrypt(self, master_id: str, nonce: bytes, data: bytes, label: bytes) -> bytes:
        """See `Ciphers`."""
        return self._cipher(master_id).encrypt(nonce, data, label)

    def decrypt(self, master_id: str, nonce: bytes, data: bytes, label: bytes) -> bytes:
        """See `Ciphers`."""
        try:
            return self._cipher(master_id).decrypt(nonce, data, label)
        except InvalidTag as error:
            raise KeyNotOpenedError("the tag does not verify") from error

    def _cipher(self, master_id: str) -> AESGCM:
        cipher = self._ciphers.get(master_id)
        if cipher is None:
            raise KeyNotOpenedError(f"master {master_id!r} is not at hand")
        return cipher


def check_value(ciphers: Ciphers, master_id: str) -> str:
    """Eight bytes in hex that tell two masters of one name apart, and tell nothing else.

    A hash of a fixed text sealed under a nonce that is never used for a key.
    """
    sealed = ciphers.encrypt(master_id, bytes(12), bytes(16), b"portcullis master check v1")
    return hashlib.sha256(sealed).hexdigest()[:16]
