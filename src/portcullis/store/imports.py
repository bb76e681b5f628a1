"""Device keys by import: the keys and how far their file has come, in one transaction."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, select, update

from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.store.chains import record_key_event
from portcullis.store.database import database_now, retried, writing
from portcullis.store.keys import device_keys_of, insert_device_keys
from portcullis.store.schema import key_imports


@dataclass(frozen=True)
class ImportState:
    """How far the import of a file has come, in lines of the decrypted file."""

    import_id: int
    lines: int = 0
    imported: int = 0
    present: int = 0
    refused: int = 0


@retried
def begin_import(engine: Engine, file_sha256: str, file_name: str) -> ImportState:
    """Begin to import a file, or go on where its last import was interrupted."""
    with writing(engine) as connection:
        row = connection.execute(
            select(key_imports)
            .where(key_imports.c.file_sha256 == file_sha256, key_imports.c.finished_at.is_(None))
            .order_by(key_imports.c.import_id.desc())
            .limit(1)
        ).one_or_none()
        if row is not None:
            return ImportState(row.import_id, row.lines, row.imported, row.present, row.refused)
        zero = {"lines": 0, "imported": 0, "present": 0, "refused": 0}
        result = connection.execute(
            key_imports.insert().values(
                file_sha256=file_sha256,
                file_name=file_name[-255:],
                started_at=database_now(connection),
                **zero,
            )
        )
        key = result.inserted_primary_key
        assert key is not None  # noqa: S101 (one row was inserted)
        return ImportState(int(key[0]))


def held_device_keys(engine: Engine, device_ids: Collection[int]) -> dict[int, pb.SealedKey]:
    """The keys that devices have already, by device."""
    with engine.connect() as connection:
        return device_keys_of(connection, device_ids)


@dataclass(frozen=True)
class RefusedLine:
    """A line whose key was not taken. `device_id`: None where the line cannot be read."""

    line: int
    device_id: int | None
    reason: str


@retried
def write_imported(
    engine: Engine,
    before: ImportState,
    after: ImportState,
    new: Sequence[pb.SealedKey],
    refused: Sequence[RefusedLine],
) -> None:
    """Insert the keys of devices that have none, and note how far the import has come.

    Raises IntegrityError, and nothing is written, if a device has got a key meanwhile. Nothing
    happens if this step has been written before.
    """
    with writing(engine) as connection:
        now = database_now(connection)
        moved = connection.execute(
            update(key_imports)
            .where(key_imports.c.import_id == after.import_id, key_imports.c.lines == before.lines)
            .values(
                lines=after.lines,
                imported=after.imported,
                present=after.present,
                refused=after.refused,
            )
        ).rowcount
        if not moved:
            return
        if new:
            insert_device_keys(connection, new, now)
            owners = [key.owner for key in new]
            record_key_event(
                connection,
                "device_keys_imported",
                import_id=after.import_id,
                count=len(new),
                lowest_device_id=str(min(owners)),
                highest_device_id=str(max(owners)),
            )
        for one in refused:
            if one.device_id is not None:
                record_key_event(
                    connection,
                    "device_key_refused",
                    import_id=after.import_id,
                    line=one.line,
                    device_id=str(one.device_id),
                    reason=one.reason,
                )


@retried
def end_import(engine: Engine, state: ImportState) -> None:
    """Note that a file has been read to its end."""
    with writing(engine) as connection:
        connection.execute(
            update(key_imports)
            .where(key_imports.c.import_id == state.import_id)
            .values(finished_at=database_now(connection))
        )
