"""The key pair that chip vendors encrypt key files to: age X25519 (C2SP age-encryption.org/v1).

The private part lies in a file, mode 0600, sealed under the master as every other key is.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
from pyrage import IdentityError, x25519

from portcullis.keys.custody import Custody, KeyLabel, Purpose
from portcullis.keys.errors import KeyFileError
from portcullis.keys.keyfile import read_private, write_private


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    recipient: str
    master_id: str
    sealed_key: str


@dataclass(frozen=True)
class ImportKey:
    """The key pair of one head-end, in `path`. `custody` opens it anew each time."""

    path: Path
    custody: Custody

    def make(self) -> bool:
        """Make the pair at random; False if it is there. Raises KeyCustodyError."""
        if self.path.exists():
            return False
        self._write(x25519.Identity.generate())
        return True

    def identity(self) -> x25519.Identity:
        """The private part. Raises KeyFileError, KeyNotOpenedError or CustodyAwayError."""
        data = read_private(self.path, "import key; `portcullis keys init` makes one")
        try:
            entry = msgspec.json.decode(data, type=_Entry)
            blob = bytes.fromhex(entry.sealed_key)
        except ValueError as error:
            raise KeyFileError(
                f'{self.path}: expected JSON {{"recipient", "master_id", "sealed_key": hex}}'
            ) from error
        key = self.custody.open(KeyLabel(Purpose.IMPORT, 0, 0, 0, entry.master_id), blob)
        try:
            return x25519.Identity.from_str(key.decode("ascii"))
        except (ValueError, IdentityError):
            # The cause is left out: it may quote the key.
            raise KeyFileError(f"{self.path}: what it seals is no age identity") from None

    def recipient(self) -> str:
        """The public part, `age1…`, from the private one; empty if there is no pair."""
        return str(self.identity().to_public()) if self.path.exists() else ""

    def reseal(self) -> None:
        """Seal the private part under the current master, if there is a pair."""
        if self.path.exists():
            self._write(self.identity())

    def _write(self, identity: x25519.Identity) -> None:
        label, blob = self.custody.seal(str(identity).encode("ascii"), Purpose.IMPORT, 0, 0, 0)
        entry = _Entry(str(identity.to_public()), label.master_id, blob.hex())
        write_private(self.path, msgspec.json.format(msgspec.json.encode(entry)) + b"\n")
