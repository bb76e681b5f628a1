"""After a restore from a backup: until the SMS has repeated its orders.

The backup knows nothing of what was ordered after it. Boxes do: they hold the states that were
aired, under numbers that the restored database must not reuse. So until the SMS has repeated its
orders, only what it orders anew is sealed; nothing that the backup says of other boxes, which
might give back a right that was revoked, goes on air under a new number.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, func, select, text, tuple_, update

from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.store.chains import begin_series, record_key_event
from portcullis.store.database import chunked, database_now, greatest, writing
from portcullis.store.keys import key_row, record_chain_made
from portcullis.store.schema import (
    claims,
    device_work,
    feed,
    keys,
    messages,
    recoveries,
    transactions,
)

_LOST_MESSAGES = 10_000_000
"""More messages than can have been ordered since any backup worth restoring."""
_IDS_PER_STATEMENT = 500


@dataclass(frozen=True)
class Recovery:
    """A restore whose orders the SMS has not repeated yet."""

    backup_at: datetime
    restored_at: datetime
    has_chains: bool

    def __str__(self) -> str:
        return (
            f"restored at {self.restored_at:%Y-%m-%d %H:%M:%S}Z from a backup of"
            f" {self.backup_at:%Y-%m-%d %H:%M:%S}Z: the SMS has to repeat its orders since"
        )


def declare_restored(engine: Engine, backup_at: datetime) -> None:
    """Note that the database was restored to its state of `backup_at`. May be done again.

    The timeline moves on, so that cyclers read everything anew; chains of evidence begin anew;
    message ids jump over any that were aired; work that waits to be sealed is held.
    """
    _skip_message_ids(engine)
    with writing(engine) as connection:
        now = database_now(connection)
        timeline = greatest(feed.c.timeline + 1, int(now.timestamp()))
        connection.execute(update(feed).where(feed.c.id == 1).values(timeline=timeline))
        begin_series(connection)
        connection.execute(claims.delete())
        connection.execute(
            update(device_work)
            .where(device_work.c.due_at.is_not(None))
            .values(due_at=None, claim_token=None, claim_wanted=None)
        )
        connection.execute(recoveries.insert().values(backup_at=backup_at, restored_at=now))
        record_key_event(connection, "database_restored", backup_at=backup_at)


def _skip_message_ids(engine: Engine) -> None:
    # A box drops a message whose id it has seen. The DDL commits by itself: done twice, it
    # jumps twice.
    with engine.connect() as connection:
        highest = connection.execute(select(func.max(messages.c.message_id))).scalar() or 0
        coming = connection.execute(
            text(
                "SELECT AUTO_INCREMENT FROM information_schema.TABLES"
                " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'messages'"
            )
        ).scalar_one()
        first = max(int(highest), int(coming)) + _LOST_MESSAGES
        connection.execute(text(f"ALTER TABLE messages AUTO_INCREMENT = {first}"))


def is_recovering(connection: Connection) -> bool:
    """Whether the SMS still has to repeat its orders after a restore."""
    pending = select(recoveries.c.recovery_id).where(recoveries.c.resynchronised_at.is_(None))
    return connection.execute(pending.limit(1)).first() is not None


def open_recovery(engine: Engine) -> Recovery | None:
    """The restore that the SMS has not caught up with; None if there is none."""
    with engine.connect() as connection:
        row = connection.execute(
            select(recoveries)
            .where(recoveries.c.resynchronised_at.is_(None))
            .order_by(recoveries.c.recovery_id.desc())
            .limit(1)
        ).one_or_none()
    if row is None:
        return None
    return Recovery(row.backup_at, row.restored_at, row.chains_made_at is not None)


def products_with_old_chains(engine: Engine, recovery: Recovery) -> dict[int, int]:
    """Products whose chains are all from before the restore: product_id → last epoch of them."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(keys.c.owner, func.max(keys.c.last_epoch))
            .where(keys.c.purpose == "product")
            .group_by(keys.c.owner)
            .having(func.max(keys.c.created_at) < recovery.restored_at)
        )
        return {row[0]: row[1] for row in rows}


def insert_withheld_chain(engine: Engine, sealed: pb.SealedKey) -> None:
    """Insert a chain that no box is given before the SMS has caught up.

    Until then a state may hold a right that was revoked since the backup. Raises IntegrityError
    if the chain is there.
    """
    with writing(engine) as connection:
        now = database_now(connection)
        connection.execute(keys.insert().values(key_row("product", sealed) | {"created_at": now}))
        record_chain_made(connection, sealed, None)


def note_chains_made(engine: Engine) -> None:
    """Every product has a chain that no box was given before the restore."""
    with writing(engine) as connection:
        connection.execute(
            update(recoveries)
            .where(recoveries.c.chains_made_at.is_(None))
            .values(chains_made_at=database_now(connection))
        )


def missing_transactions(
    engine: Engine, accepted: Collection[tuple[str, str]], progress: Callable[[int], None]
) -> Sequence[tuple[str, str]]:
    """Which of these (client_id, transaction_id), accepted once, the database does not have.

    `progress` is told of how many have been looked up since it was told last.
    """
    key = tuple_(transactions.c.client_id, transactions.c.transaction_id)
    missing = []
    with engine.connect() as connection:
        for chunk in chunked(list(accepted), _IDS_PER_STATEMENT):
            found = {
                (row.client_id, row.transaction_id)
                for row in connection.execute(
                    select(transactions.c.client_id, transactions.c.transaction_id).where(
                        key.in_(chunk)
                    )
                )
            }
            missing += [one for one in chunk if one not in found]
            progress(len(chunk))
    return missing


def declare_resynchronised(engine: Engine, evidence: str, prepare_ahead: timedelta) -> None:
    """Note that the SMS has repeated its orders; work that was held goes on.

    The new chains, and switches that fell due meanwhile, go live `prepare_ahead` from now at the
    earliest: boxes are given the keys first.
    """
    with writing(engine) as connection:
        now = database_now(connection)
        connection.execute(
            update(recoveries)
            .where(recoveries.c.resynchronised_at.is_(None))
            .values(resynchronised_at=now, evidence=evidence[:500])
        )
        work = device_work.c
        connection.execute(
            update(device_work)
            .where(work.dirty_at.is_not(None), work.due_at.is_(None), work.failed_at.is_(None))
            .values(due_at=now)
        )
        earliest = now + prepare_ahead
        connection.execute(
            update(keys).where(keys.c.switch_at < earliest).values(switch_at=earliest)
        )
        connection.execute(
            update(keys)
            .where(keys.c.purpose == "product", keys.c.seal_epoch.is_(None))
            .values(seal_epoch=keys.c.first_epoch, switch_at=earliest)
        )
        record_key_event(connection, "database_resynchronised", evidence=evidence[:500])
