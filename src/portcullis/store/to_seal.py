"""What is to be sealed for claimed devices: their state, their messages, the sealed keys."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, and_, case, or_, select

from portcullis.store.bulk import among, listing
from portcullis.store.database import snapshot, unix_s, utc_now
from portcullis.store.keys import DeviceKey, keys_and_activity, keys_by_device
from portcullis.store.readings import NOW, Reading, is_in, place, read
from portcullis.store.schema import AGAIN, entitlements, keys, messages

_TO_SEAL = (0, AGAIN)

MESSAGE_GRACE = timedelta(hours=2)
"""A message is sealed so long beyond its end: one that a clock set ahead takes for over is not."""


Window = tuple[int, int | None, int | None]
"""An entitlement of a device: product, start and end in Unix seconds.

Start None: since its order, or long ago. End None: open.
"""


Chain = Mapping[str, Any]
"""A row of `keys`."""


@dataclass(frozen=True)
class Orders:
    """What was ordered for a batch of devices, read in one go, with the keys to seal it."""

    now: datetime
    active: Mapping[int, bool]
    entitlements: Mapping[int, Sequence[Window]]  # by product
    messages: Mapping[int, Sequence[RowMapping]]  # to be sealed, or withdrawn
    device_keys: Mapping[int, DeviceKey]
    chains: Mapping[int, Sequence[Chain]]  # product → not retired, newest first


def read_orders(engine: Engine, device_ids: Collection[int]) -> Orders:
    """Read state, unsealed messages and sealed keys of the devices, after the claim.

    All as of one moment: a chain that was begun because a box lost its rights is never read
    together with the rights it had.
    """
    with snapshot(engine) as connection:
        theirs = among("device_id", device_ids)
        [[now]], held, found, (_, message_ids) = read(
            connection,
            NOW.of(),
            _WINDOWS.of(among=theirs),
            keys_and_activity(device_ids),
            _UNSEALED.of(among=theirs),
        )
        device_keys, active = keys_by_device(found)
        return Orders(
            now=now,
            active=active,
            entitlements=_windows(held),
            messages=_texts(connection, message_ids, now),
            device_keys=device_keys,
            chains=_chains(connection, set(held[1])),
        )


_CHAIN = Reading(
    tuple(keys.c),
    keys.c.purpose == "product",
    is_in(keys.c.owner, "products"),
    keys.c.retired_at.is_(None),
    keys.c.seal_epoch.is_not(None),
)


def _chains(connection: Connection, products: Collection[int]) -> dict[int, list[Chain]]:
    """The chains of products, newest first."""
    [found] = read(connection, _CHAIN.of(products=listing(products)))
    rows = [dict(zip(keys.c.keys(), row, strict=True)) for row in zip(*found, strict=True)]
    chains: dict[int, list[Chain]] = {}
    for row in sorted(rows, key=itemgetter("first_epoch"), reverse=True):
        chains.setdefault(row["owner"], []).append(row)
    return chains


_HELD = entitlements.c
_WINDOWS = Reading(
    (
        _HELD.device_id,
        _HELD.product_id,
        # One that begins with its order has begun, whatever the clock says; most began long ago.
        case(
            (or_(_HELD.starts_at == _HELD.ordered_at, _HELD.starts_at <= utc_now()), None),
            else_=unix_s(_HELD.starts_at),
        ),
        unix_s(_HELD.ends_at),
    ),
    place("among"),
    or_(_HELD.ends_at.is_(None), _HELD.ends_at > utc_now()),
)


def _windows(found: Sequence[list[Any]]) -> Mapping[int, Sequence[Window]]:
    """What devices are entitled to."""
    device_ids, *window = found
    windows: dict[int, list[Window]] = {}
    for device_id, one in sorted(zip(device_ids, zip(*window, strict=True), strict=True)):
        windows.setdefault(device_id, []).append(one)
    return windows


def begins_at(starts_at: datetime, ordered_at: datetime | None) -> datetime | None:
    """When a message begins; None: with its order, whatever the clock said then.

    A clock that has been set back since would make it wait for what it said.
    """
    return None if starts_at == ordered_at else starts_at


_UNSEALED = Reading(
    (messages.c.device_id, messages.c.message_id),
    place("among"),
    or_(
        and_(messages.c.sealed.in_(_TO_SEAL), messages.c.removed_at.is_(None)),
        and_(
            messages.c.sealed != 0,
            messages.c.removed_at.is_not(None),
            messages.c.withdrawal_sealed.in_(_TO_SEAL),
        ),
    ),
)


def _texts(
    connection: Connection, message_ids: Collection[int], now: datetime
) -> Mapping[int, Sequence[RowMapping]]:
    """The messages, but for those long over."""
    texts: dict[int, list[RowMapping]] = {}
    if message_ids:
        found = connection.execute(
            select(messages).where(
                messages.c.message_id.in_(message_ids), messages.c.expires_at > now - MESSAGE_GRACE
            )
        )
        for row in found.mappings():
            texts.setdefault(row["device_id"], []).append(row)
    return texts
