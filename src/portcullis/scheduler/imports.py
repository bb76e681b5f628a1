"""Import of a vendor key file: sealed by the encryptor, written here, compared by the encryptor.

No key is in clear in this process, unless the file itself is plain.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.store.imports import (
    ImportState,
    RefusedLine,
    begin_import,
    end_import,
    held_device_keys,
    write_imported,
)

_SHARE = 64 * 1024


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
        for batch in encryptor.import_vendor_file(shares, state.lines):
            _take(engine, encryptor, batch, result)
            progress(batch.bytes)
    end_import(engine, result.state)
    return result


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _take(
    engine: Engine, encryptor: EncryptorClient, batch: pb.ImportedKeys, result: ImportResult
) -> None:
    """Write one batch, whole or not at all."""
    while True:
        new, present, refused = _sort(engine, encryptor, batch.keys)
        state = replace(
            result.state,
            lines=batch.lines,
            imported=result.state.imported + len(new),
            present=result.state.present + present,
            refused=result.state.refused + len(refused),
        )
        try:
            write_imported(engine, result.state, state, new, refused)
        except IntegrityError:
            continue  # another import was quicker with one of them: now it is there
        result.state = state
        result.lines_refused += refused
        return


def _sort(
    engine: Engine, encryptor: EncryptorClient, offered: Sequence[pb.ImportedKey]
) -> tuple[list[pb.SealedKey], int, list[RefusedLine]]:
    """What is new, how many are there already, and what is refused."""
    refused = [RefusedLine(one.line, None, one.error) for one in offered if one.error]
    keys = [one for one in offered if not one.error]
    held = held_device_keys(engine, {one.key.owner for one in keys})
    new: list[pb.SealedKey] = []
    again: list[tuple[pb.ImportedKey, pb.SealedKey]] = []
    for one in keys:
        if one.key.owner in held:
            again.append((one, held[one.key.owner]))
        else:
            held[one.key.owner] = one.key
            new.append(one.key)
    errors = encryptor.same_keys([(there, one.key) for one, there in again]) if again else []
    refused += [
        RefusedLine(one.line, one.key.owner, error)
        for (one, _), error in zip(again, errors, strict=True)
        if error
    ]
    return new, errors.count(""), sorted(refused, key=lambda one: one.line)
