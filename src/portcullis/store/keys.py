"""Rows of `keys`: device keys by import, product key chains by the scheduler."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, func, select

from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.store.bulk import among, literal, put
from portcullis.store.chains import record_key_event
from portcullis.store.database import database_now, writing
from portcullis.store.readings import Asked, Reading, place, read
from portcullis.store.schema import devices, keys, products

PURPOSES: Mapping[int, str] = {pb.SealedKey.DEVICE: "device", pb.SealedKey.PRODUCT: "product"}
"""Purpose of the RPC → column `purpose`."""

DeviceKey = tuple[int, int, str, bytes]
"""The sealed key of a device: first and last epoch, master_id, blob."""

_DEVICE_COLUMNS = ("owner", "first_epoch", "last_epoch", "master_id", "sealed_key")
_DEVICE_KEY = tuple(keys.c[name] for name in _DEVICE_COLUMNS)


def sealed_key(row: Mapping[str, Any] | RowMapping) -> pb.SealedKey:
    """The sealed key of a row, as the RPC takes it."""
    return pb.SealedKey(
        purpose=row["purpose"].upper(),
        owner=row["owner"],
        first_epoch=row["first_epoch"],
        last_epoch=row["last_epoch"],
        master_id=row["master_id"],
        blob=row["sealed_key"],
    )


_KEYS = Reading(_DEVICE_KEY, keys.c.purpose == "device", place("among"))
_KEYS_AND_ACTIVITY = Reading(
    (*_DEVICE_KEY, func.coalesce(devices.c.active, 0)),
    keys.c.purpose == "device",
    place("among"),
    source=keys.outerjoin(devices, devices.c.device_id == keys.c.owner),
)


def device_keys_of(connection: Connection, device_ids: Iterable[int]) -> dict[int, pb.SealedKey]:
    """The sealed keys of devices, as the RPC takes them."""
    [found] = read(connection, _KEYS.of(among=among("owner", device_ids)))
    return dict(zip(found[0], map(sealed_device_key, *found), strict=True))


def keys_and_activity(device_ids: Iterable[int]) -> Asked:
    """What `keys_by_device` takes: sealed keys of devices, and whether these are active."""
    return _KEYS_AND_ACTIVITY.of(among=among("owner", device_ids))


def keys_by_device(found: Sequence[list[Any]]) -> tuple[dict[int, DeviceKey], dict[int, bool]]:
    """The sealed keys of devices, and whether these are active."""
    owners, *key, active = found
    return (
        dict(zip(owners, zip(*key, strict=True), strict=True)),
        dict(zip(owners, map(bool, active), strict=True)),
    )


def sealed_device_key(
    owner: int, first: int, last: int, master_id: str, blob: bytes
) -> pb.SealedKey:
    """The sealed key of a device, as the RPC takes it."""
    return pb.SealedKey(
        purpose=pb.SealedKey.DEVICE,
        owner=owner,
        first_epoch=first,
        last_epoch=last,
        master_id=master_id,
        blob=blob,
    )


def insert_device_keys(
    connection: Connection, sealed: Iterable[pb.SealedKey], created_at: datetime
) -> None:
    """Insert keys of devices; raises IntegrityError if one of them has a key already."""
    columns = ("purpose", *_DEVICE_COLUMNS, "created_at")
    at = literal(created_at)
    rows = [
        f"('device',{key.owner},{key.first_epoch},{key.last_epoch},{literal(key.master_id)},"
        f"{literal(key.blob)},{at})"
        for key in sealed
    ]
    put(connection, keys, columns, rows)


def products_without_chain(engine: Engine) -> list[int]:
    """Products that were made since and have no key yet."""
    with engine.connect() as connection:
        chains = select(keys.c.owner).where(keys.c.purpose == "product")
        return list(
            connection.execute(
                select(products.c.product_id).where(products.c.product_id.not_in(chains))
            ).scalars()
        )


def insert_chain(engine: Engine, sealed: pb.SealedKey) -> None:
    """Insert a product's first chain, live from now on; raises IntegrityError if it has one."""
    with writing(engine) as connection:
        now = database_now(connection)
        live = {"live_epoch": sealed.first_epoch, "seal_epoch": sealed.first_epoch}
        connection.execute(
            keys.insert().values(
                key_row("product", sealed) | live | {"created_at": now, "live_since": now}
            )
        )
        record_chain_made(connection, sealed, now)


def record_chain_made(
    connection: Connection, sealed: pb.SealedKey, live_at: datetime | None
) -> None:
    """Note that a product has a new key chain. live_at: None where it is not known yet."""
    record_key_event(
        connection,
        "chain_made",
        product_id=sealed.owner,
        first_epoch=sealed.first_epoch,
        last_epoch=sealed.last_epoch,
        master_id=sealed.master_id,
        live_at=live_at,
    )


def key_row(purpose: str, sealed: pb.SealedKey) -> dict[str, object]:
    """The columns that a sealed key brings with it."""
    return {
        "purpose": purpose,
        "owner": sealed.owner,
        "first_epoch": sealed.first_epoch,
        "last_epoch": sealed.last_epoch,
        "master_id": sealed.master_id,
        "sealed_key": sealed.blob,
    }
