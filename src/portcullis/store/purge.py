"""What is over leaves the air, then the tables; all of it in chunks that hold locks briefly."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Table,
    and_,
    delete,
    select,
    tuple_,
    update,
)

from portcullis.store.database import retried, writing
from portcullis.store.feed_writer import next_revision
from portcullis.store.held import HeldError, read_held
from portcullis.store.rotation import read_chains
from portcullis.store.schema import (
    airings,
    device_work,
    devices,
    emms,
    entitlements,
    feed,
    messages,
    transactions,
)

CHUNK = 1000
TOLD_FOR = timedelta(hours=1)
"""A removed box is told so at least this long, although it never held a key."""
OVER_S = 86_400.0
"""Entitlements and messages stay a day beyond their end: an SMS may still ask about them."""


def tombstone_ended(engine: Engine, now: datetime) -> int:
    """Take EMMs whose window has ended off the air; returns how many of one chunk."""
    return _tombstone(engine, and_(emms.c.ends_at <= now, emms.c.tombstone == 0), now)


def tombstone_removed(engine: Engine, now: datetime) -> int:
    """Take removed devices off the air once no key they hold opens anything any more.

    Not before TOLD_FOR after their first airing: a box that held nothing hears of it, too.
    """
    is_told = emms.c.first_aired_at < now - TOLD_FOR
    oldest_live: dict[int, int] = {}
    for chain in read_chains(engine):
        if chain.live_epoch is not None:
            oldest_live.setdefault(chain.product_id, chain.live_epoch)
    after, done = 0, 0
    while True:
        with engine.connect() as connection:
            rows = connection.execute(
                select(device_work.c.device_id, device_work.c.held)
                .join(devices, devices.c.device_id == device_work.c.device_id)
                .join(emms, emms.c.device_id == device_work.c.device_id)
                .where(
                    devices.c.active == 0,
                    device_work.c.dirty_at.is_(None),  # it is sealed
                    is_told,
                    emms.c.message_id == 0,
                    emms.c.part == 1,
                    emms.c.tombstone == 0,
                    device_work.c.device_id > after,
                )
                .order_by(device_work.c.device_id)
                .limit(CHUNK)
            ).all()
        if not rows:
            return done
        after = rows[-1].device_id
        blind = [row.device_id for row in rows if _is_blind(row.held, oldest_live)]
        if blind:
            # A device that was added again since has its order's state sealed after this one,
            # which clears the tombstone.
            done += _tombstone(
                engine,
                and_(
                    emms.c.device_id.in_(blind),
                    emms.c.message_id == 0,
                    emms.c.tombstone == 0,
                    is_told,
                    emms.c.device_id.in_(
                        select(devices.c.device_id).where(
                            devices.c.device_id.in_(blind), devices.c.active == 0
                        )
                    ),
                ),
                now,
            )


def _is_blind(held: str, oldest_live: Mapping[int, int]) -> bool:
    try:
        return opens_nothing(read_held(held), oldest_live)
    except HeldError:
        return False  # nobody knows: it goes on being told


def opens_nothing(held: Mapping[int, int], oldest_live: Mapping[int, int]) -> bool:
    """Whether keys up to these epochs lie below what is on air, product by product.

    `oldest_live`: the lowest epoch content may be scrambled under, of products with a chain.
    """
    return all(
        product not in oldest_live or epoch < oldest_live[product]
        for product, epoch in held.items()
    )


@retried
def _tombstone(engine: Engine, condition: ColumnElement[bool], now: datetime) -> int:
    key = tuple_(emms.c.device_id, emms.c.message_id, emms.c.part)
    with engine.connect() as connection:
        rows = connection.execute(select(*key).where(condition).limit(CHUNK)).all()
    if not rows:
        return 0
    with writing(engine) as connection:
        revision = next_revision(connection)
        return connection.execute(
            update(emms)
            .where(
                emms.c.device_id.in_({row.device_id for row in rows}),
                key.in_([tuple(row) for row in rows]),
                condition,
            )
            .values(tombstone=1, revision=revision, sealed_at=now)
        ).rowcount


def feed_revision(engine: Engine) -> int:
    """The revision that every change up to now has at most."""
    with engine.connect() as connection:
        return int(connection.execute(select(feed.c.revision)).scalar_one())


@retried
def delete_tombstones(engine: Engine, up_to_revision: int) -> int:
    """Delete a chunk of the tombstones that every cycler has seen."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(emms.c.device_id, emms.c.message_id, emms.c.part)
            .where(emms.c.revision <= up_to_revision, emms.c.tombstone == 1)
            .limit(CHUNK)
        ).all()
    if not rows:
        return 0
    with writing(engine) as connection:
        return connection.execute(
            delete(emms).where(
                emms.c.device_id.in_({row.device_id for row in rows}),
                tuple_(emms.c.device_id, emms.c.message_id, emms.c.part).in_(
                    [tuple(row) for row in rows]
                ),
                emms.c.revision <= up_to_revision,
                emms.c.tombstone == 1,
            )
        ).rowcount


def delete_over(engine: Engine, now: datetime) -> int:
    """Delete a chunk each of entitlements and messages that ended more than a day ago."""
    before = now - timedelta(seconds=OVER_S)
    return _delete_before(engine, entitlements, entitlements.c.ends_at, before) + _delete_before(
        engine, messages, messages.c.expires_at, before
    )


def delete_old(engine: Engine, before: datetime, requests_from: datetime | None) -> int:
    """Delete a chunk each of the idempotency keys and airings from `before`.

    Airings stay as long as requests of their time do (`requests_from`: of the oldest one): the
    archive has them with the request.
    """
    airings_before = before if requests_from is None else min(before, requests_from)
    return _delete_before(
        engine, transactions, transactions.c.accepted_at, before
    ) + _delete_before(engine, airings, airings.c.sealed_at, airings_before)


def _delete_before(engine: Engine, table: Table, column: Column[datetime], before: datetime) -> int:
    key = tuple_(*table.primary_key.columns)
    with writing(engine) as connection:
        rows = _keys_before(connection, table, column, before)
        if not rows:
            return 0
        return connection.execute(delete(table).where(key.in_(rows), column < before)).rowcount


def _keys_before(
    connection: Connection, table: Table, column: Column[datetime], before: datetime
) -> list[tuple[object, ...]]:
    statement = select(*table.primary_key.columns).where(column < before).limit(CHUNK)
    return [tuple(row) for row in connection.execute(statement)]
