"""What a group of orders depends on, read and locked; what it changed, written."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Table,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)

from portcullis.store.applying import Device, Group, Refusal, Request
from portcullis.store.bulk import get, is_one_of, listing, literal, put, row_of
from portcullis.store.database import database_now
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
    by_id = _locked_devices(connection, device_ids)
    now = database_now(connection)
    granted = {r.device_id for r in valid if r.product_id is not None and r.device_id in by_id}
    held = entitlements.c
    for device_id, product_id in zip(
        *get(
            connection,
            (held.device_id, held.product_id),
            is_one_of(held.device_id, granted),
            or_(held.ends_at.is_(None), held.ends_at > now),
        ),
        strict=True,
    ):
        by_id[device_id].held.add(product_id)
    added = {r.device_id for r in valid if r.kind == "adddevice" and r.device_id is not None}
    named = {r.product_id for r in valid if r.product_id is not None}
    return Group(
        now=now,
        devices=by_id,
        # Read again: under the lock, what was removed meanwhile shows.
        messages={
            row.message_id: row
            for row in _rows(connection, messages, messages.c.message_id, message_ids)
        },
        with_key=set(_ids(connection, keys.c.owner, added, keys.c.purpose == "device")),
        products=set(_ids(connection, products.c.product_id, named)),
        awaits_resync=any(r.kind == "rehit" for r in valid) and is_recovering(connection),
    )


_WITHOUT_WORK = -1
_DEVICE = (
    *(devices.c.device_id, devices.c.active, devices.c.added_at, devices.c.removed_at),
    *(devices.c.blacklisted_at, func.coalesce(device_work.c.wanted, _WITHOUT_WORK)),
)
_WITH_WORK = devices.outerjoin(device_work, device_work.c.device_id == devices.c.device_id)


def _locked_devices(connection: Connection, device_ids: Collection[int]) -> dict[int, Device]:
    """Devices and their work, locked.

    By primary key, so ascending, and each device before its work: two gateways cannot wait for
    each other in a ring.
    """
    one_of_them = is_one_of(devices.c.device_id, device_ids)
    found = get(connection, _DEVICE, one_of_them, source=_WITH_WORK, lock=True)
    by_id = {}
    for device_id, active, added_at, removed_at, blacklisted_at, wanted in zip(*found, strict=True):
        device = Device(device_id, bool(active), added_at, removed_at, blacklisted_at)
        if wanted != _WITHOUT_WORK:
            device.has_work, device.wanted = True, wanted
        by_id[device_id] = device
    return by_id


def _ids(
    connection: Connection,
    column: Column[Any],
    ids: Collection[int],
    *conditions: ColumnElement[bool],
) -> list[int]:
    """Which of the ids have a row."""
    return get(connection, (column,), is_one_of(column, ids), *conditions)[0] if ids else []


def _rows(
    connection: Connection, table: Table, column: Column[Any], values: Iterable[object]
) -> Sequence[Row[Any]]:
    wanted = list(values)
    return connection.execute(select(table).where(column.in_(wanted))).all() if wanted else []


def save(connection: Connection, group: Group) -> None:
    """Write what the group changed, its new messages excepted."""
    raised = [device for device in group.devices.values() if device.raised]
    _write_devices(connection, [device for device in raised if device.is_changed])
    _write_entitlements(connection, group, raised)
    _remove_messages(connection, group, raised)
    _seal_messages_again(connection, group, raised)
    _write_work(connection, group, raised)
    # A plain insert for what is new: another gateway's row is a duplicate key, not overwritten.
    for is_new in (True, False):
        rows = [
            row_of(product_id, name, group.now)
            for product_id, (name, was_new) in group.named_products.items()
            if was_new == is_new
        ]
        columns = ("product_id", "name", "created_at")
        put(connection, products, columns, rows, () if is_new else ("name",))


def _write_devices(connection: Connection, changed: Sequence[Device]) -> None:
    changes = ("active", "added_at", "removed_at")
    for is_new in (True, False):
        rows = [
            row_of(device.device_id, device.active, device.added_at, device.removed_at)
            for device in changed
            if device.is_new == is_new
        ]
        put(connection, devices, ("device_id", *changes), rows, () if is_new else changes)


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
        row_of(device.device_id, product_id, *window, group.second)
        for device in raised
        for product_id, window in device.windows.items()
        if window is not None
    ]
    window = ("starts_at", "ends_at", "ordered_at")
    put(connection, entitlements, ("device_id", "product_id", *window), granted, window)


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


def _write_work(connection: Connection, group: Group, raised: Sequence[Device]) -> None:
    """Have the EMMG cover the orders: a row for each new device, others raised where they are."""
    at = group.now
    fresh = [
        row_of(one.device_id, one.wanted, one.state_raised, "order", PRIORITY_ORDER, at, at, *_NONE)
        for one in raised
        if not one.has_work
    ]
    put(connection, device_work, _WORK_COLUMNS, fresh)
    alike: dict[tuple[int, int], list[int]] = {}
    for one in raised:
        if one.has_work:
            alike.setdefault((one.raised, one.state_raised), []).append(one.device_id)
    for (count, state), ids in alike.items():
        connection.exec_driver_sql(_raising(literal(at), count, state, ids))


_NONE = (0, 0, 0, 0, 0, "{}")
_WORK_COLUMNS = (
    *("device_id", "wanted", "state_wanted", "cause", "priority", "dirty_at", "due_at"),
    *("sealed", "state_sealed", "epoch", "sequence", "tries", "held"),
)


def _raising(at: str, count: int, state: int, ids: Sequence[int]) -> str:
    """The statement that has `count` orders more covered; the state up to the `state`th of them.

    MySQL reads a column that stands before in the statement as changed already.
    """
    changes = [
        f"state_wanted = wanted + {state}" if state else "state_wanted = state_wanted",
        f"wanted = wanted + {count}",
        # An order has waited since it came, not since a re-key before it.
        f"dirty_at = COALESCE(CASE WHEN priority = {PRIORITY_ORDER} THEN dirty_at END, {at})",
        # Who holds a claim will see that more is wanted.
        f"due_at = CASE WHEN claim_token IS NULL THEN {at} ELSE due_at END",
        f"cause = 'order', priority = {PRIORITY_ORDER}",
        "tries = 0, failed_at = NULL, last_error = NULL",
    ]
    return f"UPDATE device_work SET {', '.join(changes)} WHERE device_id IN {listing(ids)}"  # noqa: S608 (numbers)  # nosec B608
