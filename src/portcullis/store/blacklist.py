"""Devices that an operator shuts out, and numbers that ran away.

Shutting out is three steps, each of which may be done again: the mark, without
which the device could be added anew; the removal, an order like any other; new
key chains for every product that the device can open (scheduler/blacklist.py).
"""

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import Engine, select, update

from portcullis.runtime.errors import PortcullisError
from portcullis.store.chains import record_key_event
from portcullis.store.database import database_now, retried, writing
from portcullis.store.held import read_held
from portcullis.store.schema import PRIORITY_ORDER, device_work, devices

RAN_AWAY = timedelta(days=1)
"""How far ahead of the clock a number must be to be called so: what the encryptor refuses."""

MAX_EPOCH = 65535


class RepairError(PortcullisError):
    """A number is not to be repaired: the text says why."""

    exit_code = 2


@retried
def set_blacklisted(engine: Engine, device_id: int, *, is_blacklisted: bool) -> None:
    """Mark a device so that it cannot be added, or can again; one never added is marked too."""
    with writing(engine) as connection:
        now = database_now(connection)
        row = connection.execute(
            select(devices.c.blacklisted_at)
            .where(devices.c.device_id == device_id)
            .with_for_update()
        ).one_or_none()
        if row is None and is_blacklisted:
            values = {"device_id": device_id, "active": 0, "added_at": now, "removed_at": now}
            connection.execute(devices.insert().values(**values, blacklisted_at=now))
        elif row is not None and (row.blacklisted_at is not None) != is_blacklisted:
            connection.execute(
                update(devices)
                .where(devices.c.device_id == device_id)
                .values(blacklisted_at=now if is_blacklisted else None)
            )
        else:
            return
        event = "device_blacklisted" if is_blacklisted else "device_let_in"
        record_key_event(connection, event, device_id=str(device_id))


def is_active(engine: Engine, device_id: int) -> bool:
    """Whether a device has been added and not removed since."""
    with engine.connect() as connection:
        active = connection.execute(
            select(devices.c.active).where(devices.c.device_id == device_id)
        ).scalar_one_or_none()
        return bool(active)


def held_epochs(engine: Engine, device_id: int) -> Mapping[int, int]:
    """The highest epoch of each product that was ever sealed for a device; raises HeldError."""
    with engine.connect() as connection:
        held = connection.execute(
            select(device_work.c.held).where(device_work.c.device_id == device_id)
        ).scalar_one_or_none()
        return read_held(held or "{}")


@retried
def repair_number(engine: Engine, device_id: int) -> int:
    """Raise a device's epoch because its number ran away; returns the new epoch.

    The number begins again at the clock, and a box compares (epoch, number): it hears the next
    state. Raises RepairError for a device without a number, or whose number has not run away.
    """
    with writing(engine) as connection:
        now = database_now(connection)
        row = connection.execute(
            select(device_work.c.epoch, device_work.c.sequence)
            .where(device_work.c.device_id == device_id)
            .with_for_update()
        ).one_or_none()
        if row is None:
            raise RepairError(f"device {device_id} has no number: it was never added")
        ahead_s = row.sequence - now.timestamp()
        if ahead_s <= RAN_AWAY.total_seconds():
            raise RepairError(
                f"the number of device {device_id} is {row.sequence}, not a day ahead of the clock:"
                " there is nothing to repair"
            )
        if row.epoch >= MAX_EPOCH:
            raise RepairError(f"device {device_id} has used up its epochs: it needs a new key")
        work = device_work.c
        connection.execute(
            update(device_work)
            .where(work.device_id == device_id)
            # MySQL assigns from left to right: what others are computed from goes last.
            .ordered_values(
                (work.epoch, row.epoch + 1),
                (work.sequence, 0),
                (work.cause, "order"),
                (work.priority, PRIORITY_ORDER),
                (work.dirty_at, now),
                (work.due_at, now),
                (work.tries, 0),
                (work.failed_at, None),
                (work.last_error, None),
                (work.claim_token, None),  # what is being sealed has the old number
                (work.claim_wanted, None),
                (work.state_wanted, work.wanted + 1),
                (work.wanted, work.wanted + 1),
            )
        )
        record_key_event(
            connection,
            "device_epoch_raised",
            device_id=str(device_id),
            epoch=row.epoch + 1,
            number_was=row.sequence,
        )
        return int(row.epoch) + 1
