"""Import of a vendor key file: sealed by the encryptor, written here, compared by the encryptor.

No key is in clear in this process, unless the file itself is plain.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorClient, EncryptorError
from portcullis.store.database import chunked
from portcullis.store.imports import (
    ImportState,
    RefusedLine,
    begin_import,
    end_import,
    held_device_keys,
    write_imported,
)

_SHARE = 64 * 1024
_AT_ONCE = 2000  # lines in a transaction
_COMPARED_AT_ONCE = 500  # keys in a call


@dataclass
class ImportResult:
    """What an import has come to, over all its runs; `lines_refused` are this run's."""

    state: ImportState
    went_on_at: int
    lines_refused: list[RefusedLine] = field(default_factory=list)


def import_vendor_file(
    engine: Engine, encryptor: EncryptorClient, path: Path, progress: Callable[[int], None]
) -> ImportResult:
    """Import a file; the same file again goes on behind the last line that was dealt with.

    A key that is there already is counted; another key for a device that has one is refused, and
    so is a line that cannot be read: the others are taken. `progress` is told how many bytes of
    the file have been dealt with. Raises EncryptorError, OSError.
    """
    state = begin_import(engine, _sha256(path), path.name)
    result = ImportResult(state, went_on_at=state.lines)
    with path.open("rb") as file:
        shares = iter(lambda: file.read(_SHARE), b"")
        for batch in _joined(encryptor.import_vendor_file(shares, state.lines)):
            _take(engine, encryptor, batch, result)
            progress(batch.bytes)
    end_import(engine, result.state)
    return result


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _joined(batches: Iterable[pb.ImportedKeys]) -> Iterator[pb.ImportedKeys]:
    """Have small batches come together: what a transaction costs beside its rows is shared.

    Raises EncryptorError, behind what came before it.
    """
    joined = pb.ImportedKeys()
    failure: EncryptorError | None = None
    try:
        for batch in batches:
            joined.MergeFrom(batch)  # of lines and bytes the later ones stay
            if len(joined.keys) >= _AT_ONCE:
                yield joined
                joined = pb.ImportedKeys()
    except EncryptorError as error:
        failure = error
    if joined.lines:
        yield joined
    if failure is not None:
        raise failure


def _take(
    engine: Engine, encryptor: EncryptorClient, batch: pb.ImportedKeys, result: ImportResult
) -> None:
    """Write one batch, whole or not at all."""
    keys = [one for one in batch.keys if not one.error]
    unread = [RefusedLine(one.line, None, one.error) for one in batch.keys if one.error]
    held: dict[int, pb.SealedKey] = {}
    while True:
        new, again = _apart(keys, held)
        if again and not held:
            held = held_device_keys(engine, [key.owner for key in new])
            new, again = _apart(keys, held)
        others = _others(encryptor, again)
        refused = sorted(unread + others, key=lambda one: one.line)
        state = replace(
            result.state,
            lines=batch.lines,
            imported=result.state.imported + len(new),
            present=result.state.present + len(again) - len(others),
            refused=result.state.refused + len(refused),
        )
        try:
            write_imported(engine, result.state, state, new, refused)
        except IntegrityError:  # one of the devices has a key: seldom, so nobody looks before
            held |= held_device_keys(engine, [key.owner for key in new])
            continue
        result.state = state
        result.lines_refused += refused
        return


_Again = tuple[pb.ImportedKey, pb.SealedKey]


def _apart(
    offered: Iterable[pb.ImportedKey], held: Mapping[int, pb.SealedKey]
) -> tuple[list[pb.SealedKey], list[_Again]]:
    """The keys of devices that have none; the others, each with that which the device has.

    It has one that is `held`, or the first that is offered.
    """
    there = dict(held)
    new: list[pb.SealedKey] = []
    again: list[_Again] = []
    for one in offered:
        key = one.key
        first = there.setdefault(key.owner, key)
        if first is key:
            new.append(key)
        else:
            again.append((one, first))
    return new, again


def _others(encryptor: EncryptorClient, again: Sequence[_Again]) -> list[RefusedLine]:
    """Of keys for devices that have one: the lines with another."""
    refused = []
    for some in chunked(again, _COMPARED_AT_ONCE):
        errors = encryptor.same_keys([(there, one.key) for one, there in some])
        refused += [
            RefusedLine(one.line, one.key.owner, error)
            for (one, _), error in zip(some, errors, strict=True)
            if error
        ]
    return refused
