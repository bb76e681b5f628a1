"""The master key file: JSON `[{"master_id": …, "key": hex}, …]`, current first, mode 0600."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import msgspec

from portcullis.keys.errors import KeyFileError

MASTER_KEY_BYTES = 32
_PRIVATE_MODE = 0o600
_MASTER_ID = re.compile(r"[A-Za-z0-9_.-]{1,16}")


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A master key and its name (1 to 16 letters, digits, `_`, `.`, `-`)."""

    master_id: str
    key: bytes

    def __repr__(self) -> str:
        """Show the name, never the key."""
        return f"MasterKey({self.master_id!r}, ***)"


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    master_id: str
    key: str


def read_masters(path: Path) -> tuple[MasterKey, ...]:
    """Read the masters at hand, current first; raises KeyFileError, which names no key."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read()
    except FileNotFoundError as error:
        raise KeyFileError(f"{path}: no master key file; `portcullis keys init` makes one") from (
            error
        )
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from error
    if mode & ~_PRIVATE_MODE:
        raise KeyFileError(
            f"{path}: mode {mode:04o} lets others at the master key; chmod 0600 it, and rewrap"
            " under a new master if it may have been read"
        )
    try:
        entries = msgspec.json.decode(data, type=list[_Entry])
        masters = tuple(MasterKey(entry.master_id, bytes.fromhex(entry.key)) for entry in entries)
    except ValueError:
        # The cause is left out: it may quote what the file holds.
        raise KeyFileError(f'{path}: expected JSON [{{"master_id": …, "key": hex}}, …]') from None
    _check(path, masters)
    return masters


def _check(path: Path, masters: tuple[MasterKey, ...]) -> None:
    if not masters:
        raise KeyFileError(f"{path}: holds no master key")
    if len({master.master_id for master in masters}) < len(masters):
        raise KeyFileError(f"{path}: two masters have the same master_id")
    for place, master in enumerate(masters, start=1):
        if not _MASTER_ID.fullmatch(master.master_id) or len(master.key) != MASTER_KEY_BYTES:
            raise KeyFileError(
                f"{path}: master {place}: expected a master_id of 1 to 16 letters, digits, _ . -"
                f" and a key of {MASTER_KEY_BYTES} bytes in hex"
            )


def add_master(path: Path, master_id: str) -> None:
    """Make a random master and put it first, in a new file or before those the file has.

    The file is replaced in one step, so that a crash leaves the old or the new one whole.
    Raises KeyFileError.
    """
    older = read_masters(path) if path.exists() else ()
    masters = (MasterKey(master_id, os.urandom(MASTER_KEY_BYTES)), *older)
    _check(path, masters)
    data = msgspec.json.format(
        msgspec.json.encode([_Entry(master.master_id, master.key.hex()) for master in masters])
    )
    partial = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data + b"\n")
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
