"""What a group of orders depends on, read and locked; what it changed, written."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from sqlalchemy import (
    Column,
    Connection,
    Row,
    Table,
    and_,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)

from portcullis.store.applying import Device, Group, Refusal, Request
from portcullis.store.bulk import Script, listing, literal, row_of
from portcullis.store.chains import CHAINS, Chain, newest
from portcullis.store.database import as_time, utc_now
from portcullis.store.readings import NOTHING, NOW, Reading, is_in, place, read
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
    transactions,
)


class Pending(Request, Protocol):
    """A request that may have been refused already."""

    @property
    def client_id(self) -> str: ...  # noqa: D102 (named by the protocol)
    @property
    def transaction_id(self) -> str | None: ...  # noqa: D102
    @property
    def refusal(self) -> Refusal | None: ...  # noqa: D102


_WITHOUT_WORK = -1
_DEVICES = Reading(
    (
        *(devices.c.device_id, devices.c.active, devices.c.added_at, devices.c.removed_at),
        *(devices.c.blacklisted_at, func.coalesce(device_work.c.wanted, _WITHOUT_WORK)),
    ),
    is_in(devices.c.device_id, "ids"),
    source=devices.outerjoin(device_work, device_work.c.device_id == devices.c.device_id),
    lock=True,
)
_HELD = Reading(
    (entitlements.c.device_id, entitlements.c.product_id),
    is_in(entitlements.c.device_id, "ids"),
    or_(entitlements.c.ends_at.is_(None), entitlements.c.ends_at > utc_now()),
)
_WITH_KEY = Reading((keys.c.owner,), keys.c.purpose == "device", is_in(keys.c.owner, "ids"))
_PRODUCTS = Reading((products.c.product_id,), is_in(products.c.product_id, "ids"))
_USED = Reading((transactions.c.request_id,), place("is_one"))


class Transaction(NamedTuple):
    """What an order was accepted as."""

    body_hash: bytes
    request_id: str
    accepted_at: datetime
    message_id: int | None


@dataclass(frozen=True)
class Loaded:
    """What the tables say. transactions: by client and transaction id."""

    group: Group
    transactions: Mapping[tuple[str, str], Transaction]
    chain: Chain


def load(connection: Connection, batch: Sequence[Pending], writer: str) -> Loaded:
    """Lock the devices of the group, ascending, and read all that its orders depend on."""
    valid = [request for request in batch if request.refusal is None]
    message_ids = {r.message_id for r in valid if r.message_id is not None}
    shown = _rows(connection, messages, messages.c.message_id, message_ids)
    device_ids = {r.device_id for r in valid if r.device_id is not None}
    device_ids |= {row.device_id for row in shown}
    by_id = _locked_devices(connection, device_ids)
    # Once they are locked: what another gateway has committed meanwhile is seen.
    granted = {r.device_id for r in valid if r.product_id is not None and r.device_id in by_id}
    added = {r.device_id for r in valid if r.kind == "adddevice" and r.device_id is not None}
    named = {r.product_id for r in valid if r.product_id is not None}
    is_one = _is_one(batch)
    now, held, with_key, known, chains, used = read(
        connection,
        NOW.of(),
        _HELD.of(ids=listing(granted)),
        _WITH_KEY.of(ids=listing(added)),
        _PRODUCTS.of(ids=listing(named)),
        CHAINS.of(writer=literal(writer)),
        _USED.of(is_one=is_one),
    )
    for device_id, product_id in zip(*held, strict=True):
        by_id[device_id].held.add(product_id)
    group = Group(
        now=now[0][0],
        devices=by_id,
        # Read again: under the lock, what was removed meanwhile shows.
        messages={
            row.message_id: row
            for row in _rows(connection, messages, messages.c.message_id, message_ids)
        },
        with_key=set(with_key[0]),
        products=set(known[0]),
        awaits_resync=any(r.kind == "rehit" for r in valid) and is_recovering(connection),
    )
    by_key = _transactions(connection, is_one) if used[0] else {}
    return Loaded(group, by_key, newest(connection, writer, chains))


def _locked_devices(connection: Connection, device_ids: Collection[int]) -> dict[int, Device]:
    """Devices and their work, locked.

    By primary key, so ascending, and each device before its work: two gateways cannot wait for
    each other in a ring.
    """
    [found] = read(connection, _DEVICES.of(ids=listing(device_ids)))
    by_id = {}
    for device_id, active, added_at, removed_at, blacklisted_at, wanted in zip(*found, strict=True):
        device = Device(device_id, bool(active), added_at, removed_at, blacklisted_at)
        if wanted != _WITHOUT_WORK:
            device.has_work, device.wanted = True, wanted
        by_id[device_id] = device
    return by_id


def _is_one(batch: Sequence[Pending]) -> str:
    """The condition for the transactions that a group names."""
    by_client: dict[str, set[str]] = {}
    for request in batch:
        if request.transaction_id is not None:
            by_client.setdefault(request.client_id, set()).add(request.transaction_id)
    conditions = (
        f"client_id = {literal(client_id)} AND transaction_id IN ({','.join(map(literal, ids))})"
        for client_id, ids in by_client.items()
    )
    return " OR ".join(conditions) or NOTHING


def _transactions(connection: Connection, is_one: str) -> dict[tuple[str, str], Transaction]:
    rows = connection.exec_driver_sql(
        "SELECT client_id, transaction_id, body_hash, request_id, accepted_at, message_id"  # noqa: S608 (literals)  # nosec B608
        f" FROM transactions WHERE {is_one}"
    )
    return {
        (client_id, transaction_id): Transaction(
            body_hash, request_id, as_time(accepted_at), message_id
        )
        for client_id, transaction_id, body_hash, request_id, accepted_at, message_id in rows
    }


def _rows(
    connection: Connection, table: Table, column: Column[Any], values: Iterable[object]
) -> Sequence[Row[Any]]:
    wanted = list(values)
    return connection.execute(select(table).where(column.in_(wanted))).all() if wanted else []


def save(connection: Connection, group: Group, script: Script) -> None:
    """Write what the group changed, its new messages excepted; most of it when the script runs."""
    raised = [device for device in group.devices.values() if device.raised]
    _write_devices(script, [device for device in raised if device.is_changed])
    _end_entitlements(connection, raised)
    _write_entitlements(script, group, raised)
    _remove_messages(connection, group, raised)
    _seal_messages_again(connection, group, raised)
    _write_work(script, group, raised)
    # A plain insert for what is new: another gateway's row is a duplicate key, not overwritten.
    for is_new in (True, False):
        rows = [
            row_of(product_id, name, group.now)
            for product_id, (name, was_new) in group.named_products.items()
            if was_new == is_new
        ]
        columns = ("product_id", "name", "created_at")
        script.put(products, columns, rows, () if is_new else ("name",))


def _write_devices(script: Script, changed: Sequence[Device]) -> None:
    changes = ("active", "added_at", "removed_at")
    for is_new in (True, False):
        rows = [
            row_of(device.device_id, device.active, device.added_at, device.removed_at)
            for device in changed
            if device.is_new == is_new
        ]
        script.put(devices, ("device_id", *changes), rows, () if is_new else changes)


def _end_entitlements(connection: Connection, raised: Sequence[Device]) -> None:
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


def _write_entitlements(script: Script, group: Group, raised: Sequence[Device]) -> None:
    granted = [
        row_of(device.device_id, product_id, *window, group.second)
        for device in raised
        for product_id, window in device.windows.items()
        if window is not None
    ]
    window = ("starts_at", "ends_at", "ordered_at")
    script.put(entitlements, ("device_id", "product_id", *window), granted, window)


def _remove_messages(connection: Connection, group: Group, raised: Sequence[Device]) -> None:
    shown = messages.c
    ended = [
        and_(shown.device_id == device.device_id, shown.wanted < device.removed_messages_below)
        for device in raised
        if device.removed_messages_below
    ]
    if group.removed_messages:
        ended.append(shown.message_id.in_(group.removed_messages))
    for which in ended:
        connection.execute(
            update(messages)
            .where(which, shown.removed_at.is_(None), shown.expires_at > group.now)
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


def _write_work(script: Script, group: Group, raised: Sequence[Device]) -> None:
    """Have the EMMG cover the orders: a row for each new device, others raised where they are."""
    at = group.now
    fresh = [
        row_of(one.device_id, one.wanted, one.state_raised, "order", PRIORITY_ORDER, at, at, *_NONE)
        for one in raised
        if not one.has_work
    ]
    script.put(device_work, _WORK_COLUMNS, fresh)
    alike: dict[tuple[int, int], list[int]] = {}
    for one in raised:
        if one.has_work:
            alike.setdefault((one.raised, one.state_raised), []).append(one.device_id)
    for (count, state), ids in alike.items():
        script.add(_raising(literal(at), count, state, ids))


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
