"""How far each rotation has come: boxes marked, sealed, aired. One row a rotation, in `rotations`.

    marking → sealing → airing → switched

A box is *sealed* once a state that gives it the new epoch has been written
(`device_work.held` says so); the boxes of a product are looked through in
order, and the one that is not ready holds the cursor. Every step moves its
cursor in the transaction that does the work, so that whoever leads next goes
on from there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Engine, and_, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from portcullis.store.database import retried, writing
from portcullis.store.held import HeldError, read_held
from portcullis.store.rotation import Chain, mark
from portcullis.store.schema import (
    PRIORITY_REKEY,
    device_work,
    devices,
    entitlements,
    feed,
    leases,
    rotations,
)

_STREAM_GONE = timedelta(days=1)
"""A stream that nobody has aired for so long is no longer waited for."""


@dataclass(frozen=True)
class Progress:
    """A rotation under way. `boxes`: entitled to the product at the switch, when it began.

    `revision`: of the feed when all were sealed; `cycles_from`: by stream, the cycles it had aired
    when it had taken that revision over; `cycles_aired`: fewest of any stream since.
    """

    product_id: int
    seal_epoch: int
    begun_at: datetime
    boxes: int
    marked: int
    marked_after: int
    marked_at: datetime | None
    sealed: int
    skipped: int
    sealed_after: int
    sealed_at: datetime | None
    revision: int
    cycles_from: Mapping[str, float]
    cycles_aired: float
    ends_at: datetime | None
    switched_at: datetime | None


def begin_rotation(engine: Engine, chain: Chain, now: datetime) -> None:
    """Begin to keep count of a rotation that has been prepared; twice is once."""
    with engine.connect() as connection:
        boxes = connection.execute(
            select(func.count())
            .select_from(entitlements.join(devices, _owner()))
            .where(*_entitled(chain))
        ).scalar_one()
    try:
        with writing(engine) as connection:
            connection.execute(
                rotations.insert().values(
                    product_id=chain.product_id,
                    seal_epoch=chain.seal_epoch,
                    begun_at=now,
                    boxes=boxes,
                    marked=0,
                    marked_after=0,
                    sealed=0,
                    skipped=0,
                    sealed_after=0,
                    revision=0,
                    cycles_from="{}",
                    cycles_aired=0.0,
                )
            )
    except IntegrityError:
        return  # the leader before has begun it


def read_rotations(engine: Engine) -> list[Progress]:
    """Every rotation, oldest first."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(rotations).order_by(rotations.c.begun_at, rotations.c.product_id)
        ).mappings()
        return [
            Progress(**(dict(row) | {"cycles_from": json.loads(row["cycles_from"])}))
            for row in rows
        ]


@retried
def mark_chunk(engine: Engine, progress: Progress, chain: Chain, now: datetime, limit: int) -> int:
    """Mark the next `limit` boxes entitled to a chain's product; returns how many."""
    with writing(engine) as connection:
        after = connection.execute(
            select(rotations.c.marked_after)
            .where(_row(progress), rotations.c.marked_at.is_(None))
            .with_for_update()
        ).scalar_one_or_none()
        if after is None:
            return 0
        ids = list(
            connection.execute(
                select(entitlements.c.device_id)
                .join(devices, _owner())
                .where(*_entitled(chain), entitlements.c.device_id > after)
                .order_by(entitlements.c.device_id)
                .limit(limit)
            ).scalars()
        )
        mark(connection, ids, now, "rekey", PRIORITY_REKEY)
        connection.execute(
            update(rotations)
            .where(_row(progress))
            .values(
                marked=rotations.c.marked + len(ids),
                marked_after=ids[-1] if ids else after,
                marked_at=now if len(ids) < limit else None,
            )
        )
        return len(ids)


def _epoch_held(held: str, product_id: int) -> int:
    try:
        return read_held(held).get(product_id, 0)
    except HeldError:
        return 0  # its state is not sealed before the row is put right


@retried
def check_chunk(engine: Engine, progress: Progress, chain: Chain, now: datetime, limit: int) -> int:
    """Look whether the next `limit` boxes have been given the new epoch; returns how many have.

    Boxes that could not be sealed for good (`device_work.failed_at`) are skipped and counted: one
    poison device does not hold up a product.
    """
    with writing(engine) as connection:
        after = connection.execute(
            select(rotations.c.sealed_after)
            .where(_row(progress), rotations.c.sealed_at.is_(None))
            .with_for_update()
        ).scalar_one_or_none()
        if after is None:
            return 0
        rows = connection.execute(
            select(device_work.c.device_id, device_work.c.held, device_work.c.failed_at)
            .join(entitlements, entitlements.c.device_id == device_work.c.device_id)
            .join(devices, _owner())
            .where(*_entitled(chain), entitlements.c.device_id > after)
            .order_by(entitlements.c.device_id)
            .limit(limit)
        ).all()
        sealed = skipped = 0
        for row in rows:
            if _epoch_held(row.held, chain.product_id) >= chain.seal_epoch:
                sealed += 1
            elif row.failed_at is not None:
                skipped += 1
            else:
                break
            after = row.device_id
        # All that is sealed by now is in the feed up to its present revision.
        is_all = sealed + skipped == len(rows) < limit
        revision = connection.execute(select(feed.c.revision)).scalar_one() if is_all else 0
        connection.execute(
            update(rotations)
            .where(_row(progress))
            .values(
                sealed=rotations.c.sealed + sealed,
                skipped=rotations.c.skipped + skipped,
                sealed_after=after,
                sealed_at=now if is_all else None,
                revision=revision,
            )
        )
        return sealed + skipped


@retried
def note_airing(
    engine: Engine,
    progress: Progress,
    cycles_from: Mapping[str, float],
    cycles_aired: float,
    ends_at: datetime | None,
) -> None:
    """Note since when each stream has aired what was sealed, and when all will be over."""
    with writing(engine) as connection:
        connection.execute(
            update(rotations)
            .where(_row(progress))
            .values(
                cycles_from=json.dumps(dict(cycles_from), sort_keys=True),
                cycles_aired=cycles_aired,
                ends_at=ends_at,
            )
        )


@dataclass(frozen=True)
class StreamCycles:
    """What a stream's cycler says: full cycles aired, how long one takes, the feed it has read."""

    name: str
    cycles: float
    cycle_s: float
    revision: int


def stream_cycles(engine: Engine, now: datetime) -> list[StreamCycles]:
    """Every stream that is aired, or was within the last day."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(leases.c.name, leases.c.note).where(
                leases.c.name.startswith("stream:"), leases.c.expires_at > now - _STREAM_GONE
            )
        ).all()
    streams = []
    for name, note in rows:
        said = json.loads(note)
        streams.append(
            StreamCycles(
                name,
                float(said.get("cycles", 0.0)),
                float(said.get("cycle_s", 0.0)),
                int(said.get("revision", 0)),
            )
        )
    return streams


def _row(progress: Progress) -> ColumnElement[bool]:
    return and_(
        rotations.c.product_id == progress.product_id,
        rotations.c.seal_epoch == progress.seal_epoch,
    )


def _owner() -> ColumnElement[bool]:
    return devices.c.device_id == entitlements.c.device_id


def _entitled(chain: Chain) -> Sequence[ColumnElement[bool]]:
    """Boxes that need the new epoch: active, in a window that reaches beyond the switch."""
    return (
        entitlements.c.product_id == chain.product_id,
        devices.c.active == 1,
        or_(entitlements.c.ends_at.is_(None), entitlements.c.ends_at > chain.switch_at),
    )
