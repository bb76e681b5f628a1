"""Product key chains in time, and the marks that have boxes sealed anew.

A rotation is prepared (`seal_epoch` runs ahead of `live_epoch`, or a new
chain waits without one), its boxes are given the new epoch (store/rekey.py),
and from `switch_at` on, once they have it, it goes live. Every step names the
state it starts from, so that doing it twice changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    case,
    func,
    or_,
    select,
    update,
)

from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.store.chains import record_key_event
from portcullis.store.database import database_now, retried, writing
from portcullis.store.keys import key_row, record_chain_made
from portcullis.store.schema import (
    PRIORITIES,
    PRIORITY_RESEAL,
    device_work,
    emms,
    keys,
    rotations,
)

_AHEAD = timedelta(minutes=1)
"""No state is sealed so far ahead of the clock, unless it has been set back since."""


@dataclass(frozen=True)
class Chain:
    """A product key chain that is not retired. `live_epoch` None: not on air yet."""

    product_id: int
    first_epoch: int
    last_epoch: int
    live_epoch: int | None
    seal_epoch: int
    live_since: datetime | None
    switch_at: datetime | None


def read_chains(engine: Engine) -> list[Chain]:
    """Read every chain that is neither retired nor withheld, by product, oldest first."""
    columns = [keys.c.owner, *(keys.c[name] for name in list(Chain.__dataclass_fields__)[1:])]
    with engine.connect() as connection:
        return [
            Chain(*row)
            for row in connection.execute(
                select(*columns)
                .where(
                    keys.c.purpose == "product",
                    keys.c.retired_at.is_(None),
                    keys.c.seal_epoch.is_not(None),
                )
                .order_by(keys.c.owner, keys.c.first_epoch)
            )
        ]


@retried
def prepare_next_epoch(engine: Engine, chain: Chain, switch_at: datetime) -> None:
    """Have boxes given the next epoch of a chain, for `switch_at`."""
    with writing(engine) as connection:
        connection.execute(
            update(keys)
            .where(
                _is(chain),
                keys.c.live_epoch == chain.live_epoch,
                keys.c.seal_epoch == chain.live_epoch,
            )
            .values(seal_epoch=keys.c.live_epoch + 1, switch_at=switch_at)
        )


def insert_next_chain(engine: Engine, sealed: pb.SealedKey, switch_at: datetime) -> None:
    """Have boxes given a new chain beside the old, for `switch_at`.

    Raises IntegrityError if another has begun the same chain.
    """
    with writing(engine) as connection:
        now = database_now(connection)
        connection.execute(
            keys.insert().values(
                key_row("product", sealed)
                | {"created_at": now, "seal_epoch": sealed.first_epoch, "switch_at": switch_at}
            )
        )
        record_chain_made(connection, sealed, switch_at)


@retried
def go_live(engine: Engine, chain: Chain, now: datetime) -> bool:
    """Switch a chain that is due to the epoch prepared; older chains of its product retire.

    Returns whether this call did it.
    """
    with writing(engine) as connection:
        done = connection.execute(
            update(keys)
            .where(
                _is(chain),
                keys.c.seal_epoch == chain.seal_epoch,
                keys.c.switch_at == chain.switch_at,
                keys.c.switch_at <= now,
            )
            # MySQL assigns from left to right: switch_at goes last.
            .ordered_values(
                (keys.c.live_epoch, keys.c.seal_epoch),
                (keys.c.live_since, keys.c.switch_at),
                (keys.c.switch_at, None),
            )
        ).rowcount
        if done:
            connection.execute(
                update(rotations)
                .where(
                    rotations.c.product_id == chain.product_id,
                    rotations.c.seal_epoch == chain.seal_epoch,
                )
                .values(switched_at=now, ends_at=now)
            )
            record_key_event(
                connection,
                "epoch_switched",
                product_id=chain.product_id,
                epoch=chain.seal_epoch,
                due_at=chain.switch_at,
            )
            retired = connection.execute(
                update(keys)
                .where(
                    keys.c.purpose == "product",
                    keys.c.owner == chain.product_id,
                    keys.c.first_epoch < chain.first_epoch,
                    keys.c.retired_at.is_(None),
                )
                .values(retired_at=now)
            ).rowcount
            if retired:
                record_key_event(
                    connection,
                    "chain_retired",
                    product_id=chain.product_id,
                    below_epoch=chain.first_epoch,
                )
        return bool(done)


def _is(chain: Chain) -> ColumnElement[bool]:
    return and_(
        keys.c.purpose == "product",
        keys.c.owner == chain.product_id,
        keys.c.first_epoch == chain.first_epoch,
        keys.c.retired_at.is_(None),
    )


def mark(
    connection: Connection, device_ids: Sequence[int], now: datetime, cause: str, priority: int
) -> None:
    """Ask for the states of devices anew; whatever more urgent work waits keeps its place.

    A clean device becomes due now; one that is dirty, claimed or failed stays as it is but for
    its numbers, so that whoever has claimed it sees that there is more to do.
    """
    if not device_ids:
        return
    work = device_work.c
    keeps = and_(work.dirty_at.is_not(None), work.priority <= priority)
    clean = work.dirty_at.is_(None)
    connection.execute(
        update(device_work)
        .where(work.device_id.in_(device_ids))
        # MySQL assigns from left to right: what others are computed from goes last.
        .ordered_values(
            (work.cause, case((keeps, work.cause), else_=cause)),
            (work.priority, case((keeps, work.priority), else_=priority)),
            (work.due_at, case((clean, now), else_=work.due_at)),
            (work.dirty_at, case((clean, now), else_=work.dirty_at)),
            (work.state_wanted, work.wanted + 1),
            (work.wanted, work.wanted + 1),
        )
    )


def population(engine: Engine) -> int:
    """How many boxes have a state on air."""
    with engine.connect() as connection:
        return int(
            connection.execute(
                select(func.count()).select_from(emms).where(_state_on_air())
            ).scalar_one()
        )


@retried
def mark_chunk_for_reseal(engine: Engine, now: datetime, age: timedelta, limit: int) -> int:
    """Mark up to `limit` clean boxes whose state on air is older than `age`, oldest first.

    Or was sealed by a clock that was ahead: it lacks what ends before then, and tells the box a
    time that is not yet.
    """
    with writing(engine) as connection:
        old = [
            row
            for priority in PRIORITIES
            for row in connection.execute(_old_states(now, age, priority).limit(limit))
        ]
        ids = [device_id for _, device_id in sorted(map(tuple, old))[:limit]]
        mark(connection, ids, now, "reseal", PRIORITY_RESEAL)
        return len(ids)


def _old_states(now: datetime, age: timedelta, priority: int) -> Select[tuple[datetime, int]]:
    """When it was sealed and whose it is, oldest first; `priority`: of what was done last."""
    work = device_work.c
    return (
        select(work.state_sealed_at, work.device_id)
        .join(emms, and_(emms.c.device_id == work.device_id, _state_on_air()))
        .where(
            work.priority == priority,
            work.due_at.is_(None),
            or_(work.state_sealed_at < now - age, work.state_sealed_at > now + _AHEAD),
            work.dirty_at.is_(None),
        )
        .order_by(work.state_sealed_at)
    )


def _state_on_air() -> ColumnElement[bool]:
    return and_(emms.c.message_id == 0, emms.c.part == 1, emms.c.tombstone == 0)
