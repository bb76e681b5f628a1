"""What is to be sealed for claimed devices: their state, their messages, the sealed keys."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, RowMapping, and_, or_, select

from portcullis.store.database import database_now
from portcullis.store.schema import devices, entitlements, keys, messages


@dataclass(frozen=True)
class Orders:
    """What was ordered for a batch of devices, read in one go, with the keys to seal it."""

    now: datetime
    active: Mapping[int, bool]
    entitlements: Mapping[int, Sequence[RowMapping]]
    messages: Mapping[int, Sequence[RowMapping]]  # to be sealed, or withdrawn
    device_keys: Mapping[int, RowMapping]
    chains: Mapping[int, Sequence[RowMapping]]  # product → not retired, newest first


def read_orders(engine: Engine, device_ids: Collection[int]) -> Orders:
    """Read state, unsealed messages and sealed keys of the devices, after the claim.

    The chains come first: a chain that was begun because a box lost its rights is never read
    together with the rights it had.
    """
    with engine.connect() as connection:
        now = database_now(connection)
        chains = _chains(connection, device_ids)
        active = {
            row.device_id: bool(row.active)
            for row in connection.execute(
                select(devices.c.device_id, devices.c.active).where(
                    devices.c.device_id.in_(device_ids)
                )
            )
        }
        held = _by_device(
            connection.execute(
                select(entitlements)
                .where(
                    entitlements.c.device_id.in_(device_ids),
                    or_(entitlements.c.ends_at.is_(None), entitlements.c.ends_at > now),
                )
                .order_by(entitlements.c.device_id, entitlements.c.product_id)
            ).mappings()
        )
        texts = _by_device(
            connection.execute(
                select(messages).where(
                    messages.c.device_id.in_(device_ids),
                    messages.c.expires_at > now,
                    or_(
                        and_(messages.c.sealed == 0, messages.c.removed_at.is_(None)),
                        and_(
                            messages.c.sealed == 1,
                            messages.c.removed_at.is_not(None),
                            messages.c.withdrawal_sealed == 0,
                        ),
                    ),
                )
            ).mappings()
        )
        device_keys = {
            row["owner"]: row
            for row in connection.execute(
                select(keys).where(keys.c.purpose == "device", keys.c.owner.in_(device_ids))
            ).mappings()
        }
        return Orders(now, active, held, texts, device_keys, chains)


def _chains(connection: Connection, device_ids: Collection[int]) -> dict[int, list[RowMapping]]:
    """The chains of what the devices may be entitled to, newest first."""
    products = select(entitlements.c.product_id).where(entitlements.c.device_id.in_(device_ids))
    chains: dict[int, list[RowMapping]] = {}
    for row in connection.execute(
        select(keys)
        .where(
            keys.c.purpose == "product",
            keys.c.owner.in_(connection.execute(products.distinct()).scalars().all()),
            keys.c.retired_at.is_(None),
            keys.c.seal_epoch.is_not(None),
        )
        .order_by(keys.c.owner, keys.c.first_epoch.desc())
    ).mappings():
        chains.setdefault(row["owner"], []).append(row)
    return chains


def _by_device(rows: Iterable[RowMapping]) -> dict[int, list[RowMapping]]:
    found: dict[int, list[RowMapping]] = {}
    for row in rows:
        found.setdefault(row["device_id"], []).append(row)
    return found
