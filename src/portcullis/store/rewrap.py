"""Sealed keys read and replaced in order, for a change of master and for checking them all."""

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, Engine, and_, func, or_, select

from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.store.bulk import put, row_of
from portcullis.store.database import retried, writing
from portcullis.store.keys import PURPOSES, sealed_key
from portcullis.store.schema import keys


def count_by_master(engine: Engine) -> dict[str, int]:
    """How many rows each master has sealed."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(keys.c.master_id, func.count()).group_by(keys.c.master_id)
        ).all()
        return {row[0]: row[1] for row in rows}


def sealed_keys(
    engine: Engine, chunk: int, *, not_under: str | None = None
) -> Iterator[list[pb.SealedKey]]:
    """Every sealed key, chunk by chunk, in the order of the primary key.

    `not_under`: leave out those that this master has sealed. Rows that are changed behind the
    reader are not read again.
    """
    for purpose in reversed(
        list(PURPOSES.values())
    ):  # products first: they are few, and all need them
        owner, epoch = -1, 0
        while True:
            behind: list[ColumnElement[bool]] = [
                keys.c.purpose == purpose,
                or_(keys.c.owner > owner, and_(keys.c.owner == owner, keys.c.first_epoch > epoch)),
            ]
            if not_under is not None:
                behind.append(keys.c.master_id != not_under)
            with engine.connect() as connection:
                rows = connection.execute(
                    select(keys)
                    .where(*behind)
                    .order_by(keys.c.owner, keys.c.first_epoch)
                    .limit(chunk)
                ).mappings()
                found = [sealed_key(row) for row in rows]
            if not found:
                break
            yield found
            owner, epoch = found[-1].owner, found[-1].first_epoch


@retried
def replace_sealed(engine: Engine, pairs: Sequence[tuple[pb.SealedKey, pb.SealedKey]]) -> int:
    """Put each new seal in place of the old one, where that is still there; returns how many.

    `pairs`: (old, new), all of one purpose.
    """
    old = {(one.owner, one.first_epoch): one for one, _ in pairs}
    new = {(one.owner, one.first_epoch): one for _, one in pairs}
    purpose = PURPOSES[pairs[0][0].purpose]
    with writing(engine) as connection:
        rows = connection.execute(
            select(keys)
            .where(keys.c.purpose == purpose, keys.c.owner.in_({owner for owner, _ in old}))
            .with_for_update()
        ).mappings()
        changed: list[str] = []
        for row in rows:
            key = (row["owner"], row["first_epoch"])
            if key in old and row["sealed_key"] == old[key].blob:
                seal = {"master_id": new[key].master_id, "sealed_key": new[key].blob}
                changed.append(row_of(*(dict(row) | seal).values()))
        put(connection, keys, keys.columns.keys(), changed, ["master_id", "sealed_key"])
        return len(changed)
