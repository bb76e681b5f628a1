"""What a group of orders depends on, read and locked; what it changed, written."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from sqlalchemy import Column, Connection, Row, Table, delete, or_, select, tuple_, update

from portcullis.store.applying import Device, Group, Refusal, Request
from portcullis.store.database import chunked, database_now, upsert
from portcullis.store.recovery import is_recovering
from portcullis.store.schema import (
    AGAIN,
    PRIORITY_ORDER,
    device_work,
    devices,
    entitlements,
    keys,
    messages,
    products,
)

_STATEMENT_ROWS = 500


class Pending(Request, Protocol):
    """A request that may have been refused already."""

    @property
    def refusal(self) -> Refusal | None: ...  # noqa: D102 (named by the protocol)


def load(connection: Connection, batch: Sequence[Pending]) -> Group:
    """Lock the devices of the group, ascending, and read all that its orders depend on."""
    valid = [request for request in batch if request.refusal is None]
    message_ids = {r.message_id for r in valid if r.message_id is not None}
    shown = _rows(connection, messages, messages.c.message_id, message_ids)
    device_ids = {r.device_id for r in valid if r.device_id is not None}
    device_ids |= {row.device_id for row in shown}
    by_id: dict[int, Device] = {}
    # Ascending, and one table after the other: two gateways cannot wait for each other in a ring.
    for row in connection.execute(
        select(devices)
        .where(devices.c.device_id.in_(device_ids))
        .order_by(devices.c.device_id)
        .with_for_update()
    ):
        by_id[row.device_id] = Device(
            row.device_id,
            active=bool(row.active),
            added_at=row.added_at,
            removed_at=row.removed_at,
            blacklisted_at=row.blacklisted_at,
        )
    for row in connection.execute(
        select(device_work)
        .where(device_work.c.device_id.in_(by_id))
        .order_by(device_work.c.device_id)
        .with_for_update()
    ):
        device = by_id[row.device_id]
        device.wanted, device.state_wanted = row.wanted, row.state_wanted
        device.has_work = True
        # An order has waited since it came, not since a re-key before it.
        device.dirty_at = row.dirty_at if row.priority == PRIORITY_ORDER else None
        device.due_at = row.due_at
        device.is_claimed = row.claim_token is not None
    now = database_now(connection)
    for row in connection.execute(
        select(entitlements).where(
            entitlements.c.device_id.in_(
                {r.device_id for r in valid if r.product_id is not None and r.device_id in by_id}
            ),
            or_(entitlements.c.ends_at.is_(None), entitlements.c.ends_at > now),
        )
    ):
        by_id[row.device_id].held.add(row.product_id)
    added = {r.device_id for r in valid if r.kind == "adddevice"}
    return Group(
        now=now,
        devices=by_id,
        # Read again: under the lock, what was removed meanwhile shows.
        messages={
            row.message_id: row
            for row in _rows(connection, messages, messages.c.message_id, message_ids)
        },
        with_key=set(
            connection.execute(
                select(keys.c.owner).where(keys.c.purpose == "device", keys.c.owner.in_(added))
            ).scalars()
        ),
        products={
            row.product_id: row.name
            for row in _rows(
                connection,
                products,
                products.c.product_id,
                {r.product_id for r in valid if r.product_id is not None},
            )
        },
        awaits_resync=any(r.kind == "rehit" for r in valid) and is_recovering(connection),
    )


def _rows(
    connection: Connection, table: Table, column: Column[Any], values: Iterable[object]
) -> Sequence[Row[Any]]:
    return connection.execute(select(table).where(column.in_(list(values)))).all()


_WORK_CHANGES = (
    "wanted",
    "state_wanted",
    "cause",
    "priority",
    "dirty_at",
    "due_at",
    "tries",
    "failed_at",
    "last_error",
)


def save(connection: Connection, group: Group) -> None:
    """Write what the group changed, its new messages excepted."""
    raised = [device for device in group.devices.values() if device.is_raised]
    _write_devices(connection, [device for device in raised if device.is_changed])
    _write_entitlements(connection, group, raised)
    _remove_messages(connection, group, raised)
    _seal_messages_again(connection, group, raised)
    # A plain insert for what is new: another gateway's row is a duplicate key, not overwritten.
    fresh = [_work_row(device) for device in raised if not device.has_work]
    for chunk in chunked(fresh, _STATEMENT_ROWS):
        connection.execute(device_work.insert(), chunk)
    held = [_work_row(device) for device in raised if device.has_work]
    for chunk in chunked(held, _STATEMENT_ROWS):
        upsert(connection, device_work, chunk, _WORK_CHANGES)
    named = [
        {"product_id": product_id, "name": group.products[product_id], "created_at": group.now}
        for product_id in group.named_products
    ]
    fresh_products = [row for row in named if group.named_products[row["product_id"]]]  # type: ignore[index]
    if fresh_products:
        connection.execute(products.insert(), fresh_products)
    upsert(connection, products, [row for row in named if row not in fresh_products], ["name"])


def _write_devices(connection: Connection, changed: Sequence[Device]) -> None:
    rows = [
        (
            device.is_new,
            {
                "device_id": device.device_id,
                "active": int(device.active),
                "added_at": device.added_at,
                "removed_at": device.removed_at,
            },
        )
        for device in changed
    ]
    if fresh := [row for is_new, row in rows if is_new]:
        connection.execute(devices.insert(), fresh)
    held = [row for is_new, row in rows if not is_new]
    upsert(connection, devices, held, ["active", "added_at", "removed_at"])


def _write_entitlements(connection: Connection, group: Group, raised: Sequence[Device]) -> None:
    emptied = [device.device_id for device in raised if device.loses_all]
    if emptied:
        connection.execute(delete(entitlements).where(entitlements.c.device_id.in_(emptied)))
    revoked = [
        (device.device_id, product_id)
        for device in raised
        for product_id, window in device.windows.items()
        if window is None
    ]
    if revoked:
        pair = tuple_(entitlements.c.device_id, entitlements.c.product_id)
        connection.execute(delete(entitlements).where(pair.in_(revoked)))
    granted = [
        {
            "device_id": device.device_id,
            "product_id": product_id,
            "starts_at": window[0],
            "ends_at": window[1],
            "ordered_at": group.second,
        }
        for device in raised
        for product_id, window in device.windows.items()
        if window is not None
    ]
    upsert(connection, entitlements, granted, ["starts_at", "ends_at", "ordered_at"])


def _remove_messages(connection: Connection, group: Group, raised: Sequence[Device]) -> None:
    live = (messages.c.removed_at.is_(None), messages.c.expires_at > group.now)
    if group.removed_messages:
        connection.execute(
            update(messages)
            .where(messages.c.message_id.in_(group.removed_messages), *live)
            .values(removed_at=group.now)
        )
    for device in raised:
        if device.removed_messages_below:
            connection.execute(
                update(messages)
                .where(
                    messages.c.device_id == device.device_id,
                    messages.c.wanted < device.removed_messages_below,
                    *live,
                )
                .values(removed_at=group.now)
            )


def _seal_messages_again(connection: Connection, group: Group, raised: Sequence[Device]) -> None:
    """Have the messages of re-hit devices sealed anew, and the withdrawals of those removed."""
    ids = [device.device_id for device in raised if device.is_rehit]
    if not ids:
        return
    shown = messages.c
    of_them = (shown.device_id.in_(ids), shown.expires_at > group.now)
    connection.execute(
        update(messages)
        .where(*of_them, shown.removed_at.is_(None), shown.sealed == 1)
        .values(sealed=AGAIN)
    )
    connection.execute(
        update(messages)
        .where(*of_them, shown.removed_at.is_not(None), shown.withdrawal_sealed == 1)
        .values(withdrawal_sealed=AGAIN)
    )


def _work_row(device: Device) -> dict[str, object]:
    return {
        "device_id": device.device_id,
        "wanted": device.wanted,
        "state_wanted": device.state_wanted,
        "cause": "order",
        "priority": PRIORITY_ORDER,
        "dirty_at": device.dirty_at,
        "due_at": device.due_at,
        "tries": 0,
        "failed_at": None,
        "last_error": None,
    }
