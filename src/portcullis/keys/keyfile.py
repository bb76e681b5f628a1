"""Masters in a file: JSON `[{"master_id": …, "key": hex}, …]`, current first, mode 0600.

One that waits has `"waiting": true`. Retired ones are in a second file of the
same form beside it, which belongs off the machine (docs/operations/keys.md).
"""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from portcullis.keys.errors import KeyFileError, KeyNotOpenedError, MasterError
from portcullis.keys.masters import MASTER_ID, MASTER_KEY_BYTES, KeyRing, MasterKey, MasterState

_PRIVATE_MODE = 0o600


class _Entry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    master_id: str
    key: str
    waiting: bool = False


class FileMasters:
    """The masters of a file; others may change the file meanwhile, in one step each time."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises KeyFileError."""
        self.path = path
        self._seen: tuple[int, ...] | None = None
        self._ring = self._read()

    def __repr__(self) -> str:
        """Show the place and the names, never a key."""
        return f"FileMasters({self.path}, {self._ring!r})"

    @property
    def retired_path(self) -> Path:
        """Where retired masters are put."""
        return self.path.with_name(f"{self.path.stem}-retired{self.path.suffix}")

    def masters(self) -> Mapping[str, MasterState]:
        """See `Ciphers`."""
        return self._ring.masters()

    def encrypt(self, master_id: str, nonce: bytes, data: bytes, label: bytes) -> bytes:
        """See `Ciphers`."""
        return self._ring.encrypt(master_id, nonce, data, label)

    def decrypt(self, master_id: str, nonce: bytes, data: bytes, label: bytes) -> bytes:
        """See `Ciphers`; a master that is not known is looked for in the file."""
        if master_id not in self._ring.masters():
            try:
                self.refresh()
            except KeyFileError as error:
                raise KeyNotOpenedError(str(error)) from error
        return self._ring.decrypt(master_id, nonce, data, label)

    def refresh(self) -> None:
        """Read the file again if it has changed; raises KeyFileError and keeps what it has."""
        if _signature(self.path) != self._seen:
            self._ring = self._read()

    def check(self) -> str | None:
        """See `MasterStore`."""
        try:
            self.refresh()
        except KeyFileError as error:
            return str(error)
        return None

    def make(self, master_id: str) -> None:
        """See `MasterStore`."""
        self.refresh()
        if master_id not in self._ring.masters():
            key = MasterKey(master_id, os.urandom(MASTER_KEY_BYTES), waiting=True)
            self._write([*self._ring.keys, key])

    def use(self, master_id: str) -> None:
        """See `MasterStore`."""
        self.refresh()
        chosen = self._at_hand(master_id)
        others = [one for one in self._ring.keys if one.master_id != master_id]
        self._write([replace(chosen, waiting=False), *others])

    def retire(self, master_id: str) -> None:
        """See `MasterStore`; the retired file is written first, so that no key is ever lost."""
        self.refresh()
        if self._ring.keys[0].master_id == master_id:
            raise MasterError(f"master {master_id} is the current one")
        if master_id not in self._ring.masters() and master_id in _ids(self._retired()):
            return
        chosen = self._at_hand(master_id)
        kept = [one for one in self._retired() if one.master_id != master_id]
        write_masters(self.retired_path, [*kept, replace(chosen, waiting=False)])
        self._write([one for one in self._ring.keys if one.master_id != master_id])

    def recall(self, master_id: str) -> None:
        """See `MasterStore`; the retired file keeps its entry."""
        self.refresh()
        if master_id in self._ring.masters():
            return
        for one in self._retired():
            if one.master_id == master_id:
                self._write([*self._ring.keys, replace(one, waiting=False)])
                return
        raise MasterError(f"master {master_id} is not in {self.retired_path}")

    def _at_hand(self, master_id: str) -> MasterKey:
        for one in self._ring.keys:
            if one.master_id == master_id:
                return one
        raise MasterError(f"master {master_id} is not in {self.path}")

    def _retired(self) -> tuple[MasterKey, ...]:
        return read_masters(self.retired_path) if self.retired_path.exists() else ()

    def _read(self) -> KeyRing:
        seen = _signature(self.path)
        ring = KeyRing(read_masters(self.path))
        self._seen = seen
        return ring

    def _write(self, masters: Sequence[MasterKey]) -> None:
        write_masters(self.path, masters)
        self._ring = self._read()


def _signature(path: Path) -> tuple[int, ...] | None:
    """What changes when the file is replaced; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)


def _ids(masters: Sequence[MasterKey]) -> set[str]:
    return {one.master_id for one in masters}


def read_masters(path: Path) -> tuple[MasterKey, ...]:
    """Read the masters at hand, current first; raises KeyFileError, which names no key."""
    data = read_private(path, "master key file; `portcullis keys init` makes one")
    try:
        entries = msgspec.json.decode(data, type=list[_Entry])
        masters = tuple(
            MasterKey(entry.master_id, bytes.fromhex(entry.key), entry.waiting) for entry in entries
        )
    except ValueError:
        # The cause is left out: it may quote what the file holds.
        raise KeyFileError(f'{path}: expected JSON [{{"master_id": …, "key": hex}}, …]') from None
    _check(path, masters)
    return masters


def _check(path: Path, masters: Sequence[MasterKey]) -> None:
    if not masters:
        raise KeyFileError(f"{path}: holds no master key")
    if masters[0].waiting:
        raise KeyFileError(f"{path}: the first master is the current one, and cannot be waiting")
    if len(_ids(masters)) < len(masters):
        raise KeyFileError(f"{path}: two masters have the same master_id")
    for place, master in enumerate(masters, start=1):
        if not MASTER_ID.fullmatch(master.master_id) or len(master.key) != MASTER_KEY_BYTES:
            raise KeyFileError(
                f"{path}: master {place}: expected a master_id of 1 to 16 letters, digits, _ . -"
                f" and a key of {MASTER_KEY_BYTES} bytes in hex"
            )


def init_masters(path: Path, master_id: str) -> bool:
    """Make the file with a first random master; False if it is there already."""
    if path.exists():
        read_masters(path)
        return False
    write_masters(path, [MasterKey(master_id, os.urandom(MASTER_KEY_BYTES))])
    return True


def write_masters(path: Path, masters: Sequence[MasterKey]) -> None:
    """Replace the file in one step; raises KeyFileError."""
    _check(path, masters)
    entries = [_Entry(one.master_id, one.key.hex(), one.waiting) for one in masters]
    write_private(path, msgspec.json.format(msgspec.json.encode(entries)) + b"\n")


def read_private(path: Path, what: str) -> bytes:
    """Read a file that only its owner may read; raises KeyFileError."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read()
    except FileNotFoundError as error:
        raise KeyFileError(f"{path}: no {what}") from error
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from error
    if mode & ~_PRIVATE_MODE:
        raise KeyFileError(
            f"{path}: mode {mode:04o} lets others at the keys; chmod 0600 it, and rotate the"
            " master if it may have been read"
        )
    return data


def write_private(path: Path, data: bytes) -> None:
    """Replace a file in one step, mode 0600: a crash leaves the old or the new one whole.

    Raises KeyFileError.
    """
    partial = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
