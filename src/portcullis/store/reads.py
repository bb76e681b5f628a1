"""What the gateway reads back: where an order is, what a device holds, the catalogue."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, func, or_, select

from portcullis.store.database import database_now
from portcullis.store.schema import (
    airings,
    device_work,
    devices,
    emms,
    entitlements,
    messages,
    products,
    requests,
)

_ENTITLEMENT_ORDERS = ("addentitlement", "removeentitlement")


@dataclass(frozen=True)
class Airing:
    """When the EMMs that cover orders up to `wanted` were sealed and first aired."""

    wanted: int
    sealed_at: datetime
    first_aired_at: datetime | None


@dataclass(frozen=True)
class Trail:
    """What is known of one accepted order.

    Attributes:
        now: the database's clock.
        airing: the first airing that covers the order.
        replaced_by: number of the earliest later order that replaces its effect.
        replacing_airing: the first airing that covers that one.
        ends_at: when its window or message is over.
        sealed: number up to which the device's orders are sealed.
        is_withdrawn_unsealed: its message was removed before it was ever sealed.
        failed: why sealing was given up.
    """

    now: datetime
    wanted: int
    airing: Airing | None = None
    replaced_by: int | None = None
    replacing_request_id: str | None = None
    replacing_airing: Airing | None = None
    ends_at: datetime | None = None
    sealed: int = 0
    is_withdrawn_unsealed: bool = False
    failed: str | None = None


@dataclass(frozen=True)
class RequestRecord:
    """One request as the tables know it. `trail`: only of an accepted order for a device."""

    client_id: str
    request_id: str
    transaction_id: str | None
    kind: str
    outcome: str
    detail: str | None
    device_id: int | None
    message_id: int | None
    body: str
    received_at: datetime
    trail: Trail | None


def request_by_id(engine: Engine, client_id: str | None, request_id: str) -> RequestRecord | None:
    """A request of this client; None: of any."""
    own = [] if client_id is None else [requests.c.client_id == client_id]
    return _find(engine, and_(requests.c.request_id == request_id, *own))


def request_by_transaction(
    engine: Engine, client_id: str, transaction_id: str
) -> RequestRecord | None:
    """The accepted request with this transaction id, else the last one refused."""
    return _find(
        engine,
        and_(
            requests.c.client_id == client_id,
            requests.c.transaction_id == transaction_id,
        ),
    )


def requests_where(
    engine: Engine, condition: ColumnElement[bool], latest: int
) -> list[RequestRecord]:
    """The `latest` requests of which something holds, newest first."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(requests).where(condition).order_by(requests.c.request_id.desc()).limit(latest)
        ).all()
        return [_record(connection, row) for row in rows]


def clients_with(engine: Engine, transaction_id: str) -> list[str]:
    """The clients that have used a transaction id; reads the whole index."""
    with engine.connect() as connection:
        return sorted(
            connection.execute(
                select(requests.c.client_id)
                .where(requests.c.transaction_id == transaction_id)
                .distinct()
            ).scalars()
        )


def _find(engine: Engine, condition: ColumnElement[bool]) -> RequestRecord | None:
    accepted_first = (requests.c.outcome != "accepted", requests.c.request_id.desc())
    with engine.connect() as connection:
        row = connection.execute(
            select(requests).where(condition).order_by(*accepted_first).limit(1)
        ).one_or_none()
        return None if row is None else _record(connection, row)


def _record(connection: Connection, row: Row[Any]) -> RequestRecord:
    return RequestRecord(
        client_id=row.client_id,
        request_id=row.request_id,
        transaction_id=row.transaction_id,
        kind=row.kind,
        outcome=row.outcome,
        detail=row.detail,
        device_id=row.device_id,
        message_id=row.message_id,
        body=row.body,
        received_at=row.received_at,
        trail=None if row.wanted is None else _trail(connection, row),
    )


def _trail(connection: Connection, order: Row[Any]) -> Trail:
    now = database_now(connection)
    own_message = order.message_id or 0
    airing = _airing(connection, order.device_id, own_message, order.wanted)
    replacing = _replacing(connection, order)
    work = connection.execute(
        select(device_work.c.sealed, device_work.c.failed_at, device_work.c.last_error).where(
            device_work.c.device_id == order.device_id
        )
    ).one_or_none()
    message = connection.execute(
        select(messages).where(messages.c.message_id == own_message)
    ).one_or_none()
    body = json.loads(order.body)
    ends_at = body.get("ends_at") or body.get("expires_at")
    if order.kind == "removeosm":
        over = now if message is None else message.expires_at
    else:
        over = ends_at and datetime.fromisoformat(ends_at)
    return Trail(
        now=now,
        wanted=order.wanted,
        airing=airing,
        replaced_by=None if replacing is None else replacing.wanted,
        replacing_request_id=None if replacing is None else replacing.request_id,
        replacing_airing=None
        if replacing is None
        else _airing(
            connection,
            order.device_id,
            own_message if replacing.kind == "removeosm" else 0,
            replacing.wanted,
        ),
        ends_at=over,
        sealed=0 if work is None else work.sealed,
        is_withdrawn_unsealed=message is not None
        and message.removed_at is not None
        and not message.sealed,
        failed=work.last_error or "given up"
        if work is not None and work.failed_at is not None
        else None,
    )


def _airing(connection: Connection, device_id: int, message_id: int, wanted: int) -> Airing | None:
    row = connection.execute(
        select(airings)
        .where(
            airings.c.device_id == device_id,
            airings.c.message_id == message_id,
            airings.c.wanted >= wanted,
        )
        .order_by(airings.c.wanted)
        .limit(1)
    ).one_or_none()
    return None if row is None else Airing(row.wanted, row.sealed_at, row.first_aired_at)


def _replacing(connection: Connection, order: Row[Any]) -> Row[Any] | None:
    """The earliest later order that replaces this one's effect."""
    replaces: ColumnElement[bool]
    if order.kind == "removeosm":
        return None
    if order.kind == "removedevice":
        replaces = requests.c.kind == "adddevice"
    else:
        replaces = requests.c.kind == "removedevice"
    if order.kind in _ENTITLEMENT_ORDERS:
        replaces = or_(
            replaces,
            and_(
                requests.c.kind.in_(_ENTITLEMENT_ORDERS),
                requests.c.product_id == order.product_id,
            ),
        )
    if order.kind == "generateosm":
        removes_it = and_(requests.c.kind == "removeosm", requests.c.message_id == order.message_id)
        replaces = or_(replaces, removes_it)
    return connection.execute(
        select(requests)
        .where(
            requests.c.device_id == order.device_id,
            requests.c.wanted > order.wanted,
            requests.c.outcome == "accepted",
            replaces,
        )
        .order_by(requests.c.wanted)
        .limit(1)
    ).one_or_none()


@dataclass(frozen=True)
class DeviceRecord:
    """A device as the head-end holds it. `number`: of its last state EMM."""

    active: bool
    number: int
    last_aired_at: datetime | None
    entitlements: Sequence[Row[Any]]
    messages: Sequence[Row[Any]]


def device_record(engine: Engine, device_id: int) -> DeviceRecord | None:
    """What a device is entitled to, now or later, and what it is to show."""
    with engine.connect() as connection:
        device = connection.execute(
            select(devices).where(devices.c.device_id == device_id)
        ).one_or_none()
        if device is None:
            return None
        now = database_now(connection)
        number = connection.execute(
            select(device_work.c.sequence).where(device_work.c.device_id == device_id)
        ).scalar_one_or_none()
        aired = [
            connection.execute(
                select(func.max(table.c.first_aired_at)).where(table.c.device_id == device_id)
            ).scalar_one()
            for table in (airings, emms)
        ]
        held = connection.execute(
            select(entitlements)
            .where(
                entitlements.c.device_id == device_id,
                or_(entitlements.c.ends_at.is_(None), entitlements.c.ends_at > now),
            )
            .order_by(entitlements.c.product_id)
        ).all()
        shown = connection.execute(
            select(messages)
            .where(
                messages.c.device_id == device_id,
                messages.c.removed_at.is_(None),
                messages.c.expires_at > now,
            )
            .order_by(messages.c.message_id)
        ).all()
        return DeviceRecord(
            active=bool(device.active),
            number=number or 0,
            last_aired_at=max((time for time in aired if time is not None), default=None),
            entitlements=held,
            messages=shown,
        )


def catalogue(engine: Engine) -> Sequence[Row[Any]]:
    """Every product."""
    with engine.connect() as connection:
        return connection.execute(select(products).order_by(products.c.product_id)).all()
