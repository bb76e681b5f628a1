"""What is to be sealed for claimed devices: their state, their messages, the sealed keys."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, RowMapping, and_, case, or_, select

from portcullis.store.bulk import get, is_among
from portcullis.store.database import database_now, snapshot, unix_s, utc_now
from portcullis.store.keys import DeviceKey, device_keys_and_activity
from portcullis.store.schema import AGAIN, entitlements, keys, messages

_TO_SEAL = (0, AGAIN)

MESSAGE_GRACE = timedelta(hours=2)
"""A message is sealed so long beyond its end: one that a clock set ahead takes for over is not."""


Window = tuple[int, int | None, int | None]
"""An entitlement of a device: product, start and end in Unix seconds.

Start None: since its order, or long ago. End None: open.
"""


@dataclass(frozen=True)
class Orders:
    """What was ordered for a batch of devices, read in one go, with the keys to seal it."""

    now: datetime
    active: Mapping[int, bool]
    entitlements: Mapping[int, Sequence[Window]]  # by product
    messages: Mapping[int, Sequence[RowMapping]]  # to be sealed, or withdrawn
    device_keys: Mapping[int, DeviceKey]
    chains: Mapping[int, Sequence[RowMapping]]  # product → not retired, newest first


def read_orders(engine: Engine, device_ids: Collection[int]) -> Orders:
    """Read state, unsealed messages and sealed keys of the devices, after the claim.

    All as of one moment: a chain that was begun because a box lost its rights is never read
    together with the rights it had.
    """
    with snapshot(engine) as connection:
        now = database_now(connection)
        windows, products = _windows(connection, device_ids, now)
        device_keys, active = device_keys_and_activity(connection, device_ids)
        return Orders(
            now=now,
            active=active,
            entitlements=windows,
            messages=_texts(connection, device_ids, now),
            device_keys=device_keys,
            chains=_chains(connection, products),
        )


def _chains(connection: Connection, products: Collection[int]) -> dict[int, list[RowMapping]]:
    """The chains of products, newest first."""
    chains: dict[int, list[RowMapping]] = {}
    for row in connection.execute(
        select(keys)
        .where(
            keys.c.purpose == "product",
            keys.c.owner.in_(products),
            keys.c.retired_at.is_(None),
            keys.c.seal_epoch.is_not(None),
        )
        .order_by(keys.c.owner, keys.c.first_epoch.desc())
    ).mappings():
        chains.setdefault(row["owner"], []).append(row)
    return chains


_HELD = entitlements.c
_WINDOW = (
    _HELD.device_id,
    _HELD.product_id,
    # One that begins with its order has begun, whatever the clock says; most began long ago.
    case(
        (or_(_HELD.starts_at == _HELD.ordered_at, _HELD.starts_at <= utc_now()), None),
        else_=unix_s(_HELD.starts_at),
    ),
    unix_s(_HELD.ends_at),
)


def _windows(
    connection: Connection, device_ids: Collection[int], now: datetime
) -> tuple[Mapping[int, Sequence[Window]], Collection[int]]:
    """What devices are entitled to, and all products in that."""
    found = get(
        connection,
        _WINDOW,
        is_among(_HELD.device_id, device_ids),
        or_(_HELD.ends_at.is_(None), _HELD.ends_at > now),
    )
    device_ids, *window = found
    windows: dict[int, list[Window]] = {}
    for device_id, one in sorted(zip(device_ids, zip(*window, strict=True), strict=True)):
        windows.setdefault(device_id, []).append(one)
    return windows, set(window[0])


def begins_at(starts_at: datetime, ordered_at: datetime | None) -> datetime | None:
    """When a message begins; None: with its order, whatever the clock said then.

    A clock that has been set back since would make it wait for what it said.
    """
    return None if starts_at == ordered_at else starts_at


def _texts(
    connection: Connection, device_ids: Collection[int], now: datetime
) -> Mapping[int, Sequence[RowMapping]]:
    rows = connection.execute(
        select(messages).where(
            is_among(messages.c.device_id, device_ids),
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
