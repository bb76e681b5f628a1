"""What is to be sealed for claimed devices: their state, their messages, the sealed keys."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import NamedTuple

from sqlalchemy import Connection, Engine, RowMapping, and_, or_, select

from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.store.bulk import get, is_one_of
from portcullis.store.database import database_now
from portcullis.store.keys import device_keys_of
from portcullis.store.schema import AGAIN, devices, entitlements, keys, messages

_TO_SEAL = (0, AGAIN)

MESSAGE_GRACE = timedelta(hours=2)
"""A message is sealed so long beyond its end: one that a clock set ahead takes for over is not."""


class Window(NamedTuple):
    """An entitlement of a device; `starts_at` None: since its order, `ends_at` None: open."""

    product_id: int
    starts_at: datetime | None
    ends_at: datetime | None


@dataclass(frozen=True)
class Orders:
    """What was ordered for a batch of devices, read in one go, with the keys to seal it."""

    now: datetime
    active: Mapping[int, bool]
    entitlements: Mapping[int, Sequence[Window]]  # by product
    messages: Mapping[int, Sequence[RowMapping]]  # to be sealed, or withdrawn
    device_keys: Mapping[int, pb.SealedKey]
    chains: Mapping[int, Sequence[RowMapping]]  # product → not retired, newest first


def read_orders(engine: Engine, device_ids: Collection[int]) -> Orders:
    """Read state, unsealed messages and sealed keys of the devices, after the claim.

    The chains come first: a chain that was begun because a box lost its rights is never read
    together with the rights it had.
    """
    with engine.connect() as connection:
        now = database_now(connection)
        chains = _chains(connection, device_ids)
        device = devices.c
        ids, flags = get(
            connection, (device.device_id, device.active), is_one_of(device.device_id, device_ids)
        )
        return Orders(
            now=now,
            active=dict(zip(ids, map(bool, flags), strict=True)),
            entitlements=_windows(connection, device_ids, now),
            messages=_texts(connection, device_ids, now),
            device_keys=device_keys_of(connection, device_ids),
            chains=chains,
        )


def _chains(connection: Connection, device_ids: Collection[int]) -> dict[int, list[RowMapping]]:
    """The chains of what the devices may be entitled to, newest first."""
    products = select(entitlements.c.product_id).where(
        is_one_of(entitlements.c.device_id, device_ids)
    )
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


def _windows(
    connection: Connection, device_ids: Collection[int], now: datetime
) -> Mapping[int, Sequence[Window]]:
    held = entitlements.c
    columns = (held.device_id, held.product_id, held.starts_at, held.ends_at, held.ordered_at)
    found = get(
        connection,
        columns,
        is_one_of(held.device_id, device_ids),
        or_(held.ends_at.is_(None), held.ends_at > now),
    )
    windows: dict[int, list[Window]] = {}
    rows = sorted(zip(*found, strict=True), key=itemgetter(0, 1))
    for device_id, product_id, starts_at, ends_at, ordered_at in rows:
        start = begins_at(starts_at, ordered_at)
        windows.setdefault(device_id, []).append(Window(product_id, start, ends_at))
    return windows


def begins_at(starts_at: datetime, ordered_at: datetime | None) -> datetime | None:
    """When a right or a message begins; None: with its order, whatever the clock said then.

    A clock that has been set back since would make it wait for what it said.
    """
    return None if starts_at == ordered_at else starts_at


def _texts(
    connection: Connection, device_ids: Collection[int], now: datetime
) -> Mapping[int, Sequence[RowMapping]]:
    rows = connection.execute(
        select(messages).where(
            is_one_of(messages.c.device_id, device_ids),
            messages.c.expires_at > now - MESSAGE_GRACE,
            or_(
                and_(messages.c.sealed.in_(_TO_SEAL), messages.c.removed_at.is_(None)),
                and_(
                    messages.c.sealed != 0,
                    messages.c.removed_at.is_not(None),
                    messages.c.withdrawal_sealed.in_(_TO_SEAL),
                ),
            ),
        )
    )
    texts: dict[int, list[RowMapping]] = {}
    for row in rows.mappings():
        texts.setdefault(row["device_id"], []).append(row)
    return texts
