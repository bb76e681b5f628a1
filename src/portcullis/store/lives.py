"""The life of a box and of its orders in one reading, for people who ask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Row, select

from portcullis.store.failures import work_of
from portcullis.store.reads import (
    DeviceRecord,
    RequestRecord,
    device_record,
    request_by_transaction,
    requests_where,
)
from portcullis.store.schema import devices, products, requests
from portcullis.store.streams import NextAiring, next_airings, stream_figures

_RECENT = 20_000


@dataclass(frozen=True)
class DeviceLife:
    """What is known of a box.

    Attributes:
        state: what it is to hold.
        work: how the sealing of its orders stands: tries, due_at, failed_at, last_error.
        next_airings: by when each stream sends it its state next.
        requests: its latest, newest first.
        products: names of the products it is entitled to.
    """

    device_id: int
    state: DeviceRecord
    work: Row[Any] | None
    next_airings: Sequence[NextAiring]
    requests: Sequence[RequestRecord]
    products: Mapping[int, str]


def device_life(engine: Engine, device_id: int, latest: int) -> DeviceLife | None:
    """The life of a box with its `latest` requests; None for one that was never added."""
    state = device_record(engine, device_id)
    if state is None:
        return None
    held = [row.product_id for row in state.entitlements]
    with engine.connect() as connection:
        names = connection.execute(
            select(products.c.product_id, products.c.name).where(products.c.product_id.in_(held))
        ).all()
    return DeviceLife(
        device_id,
        state,
        work_of(engine, device_id),
        next_airings(engine, device_id, stream_figures(engine)),
        requests_where(engine, requests.c.device_id == device_id, latest),
        {row.product_id: row.name for row in names},
    )


def is_known(engine: Engine, device_id: int) -> bool:
    """Whether a device was ever added."""
    with engine.connect() as connection:
        found = select(devices.c.device_id).where(devices.c.device_id == device_id)
        return connection.execute(found).first() is not None


def requests_of_transaction(engine: Engine, transaction_id: str) -> list[RequestRecord]:
    """The request that each client has made under a transaction id.

    The clients are few and found by skipping through an index; no index begins with the id.
    """
    with engine.connect() as connection:
        clients = connection.execute(select(requests.c.client_id).distinct()).scalars().all()
    found = (request_by_transaction(engine, client, transaction_id) for client in sorted(clients))
    return [record for record in found if record is not None]


def recent_refusals(engine: Engine, latest: int) -> Sequence[Row[Any]]:
    """The latest refused of the last 20,000 requests, newest first.

    Rows of request_id, client_id, transaction_id, kind, device_id, outcome, detail, received_at.
    """
    row = requests.c
    newest = (
        select(row.request_id, row.outcome).order_by(row.request_id.desc()).limit(_RECENT)
    ).subquery()
    refused = (
        select(newest.c.request_id)
        .where(newest.c.outcome != "accepted")
        .order_by(newest.c.request_id.desc())
        .limit(latest)
    )
    columns = (
        *(row.request_id, row.client_id, row.transaction_id, row.kind, row.device_id),
        *(row.outcome, row.detail, row.received_at),
    )
    with engine.connect() as connection:
        ids = connection.execute(refused).scalars().all()
        return connection.execute(
            select(*columns).where(row.request_id.in_(ids)).order_by(row.request_id.desc())
        ).all()
