"""What every active device may see now, in order, for a comparison with another's list."""

from collections.abc import Iterator
from itertools import groupby

from sqlalchemy import Engine, and_, or_, select

from portcullis.store.database import database_now
from portcullis.store.schema import devices, entitlements

_CHUNK = 2000


def active_rights(engine: Engine) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Each active device with the products whose window is open now, both ascending."""
    after = 0
    while True:
        with engine.connect() as connection:
            now = database_now(connection)
            ids = list(
                connection.execute(
                    select(devices.c.device_id)
                    .where(devices.c.active == 1, devices.c.device_id > after)
                    .order_by(devices.c.device_id)
                    .limit(_CHUNK)
                ).scalars()
            )
            if not ids:
                return
            held = connection.execute(
                select(entitlements.c.device_id, entitlements.c.product_id)
                .where(
                    and_(
                        entitlements.c.device_id.between(ids[0], ids[-1]),
                        or_(
                            entitlements.c.starts_at <= now,
                            entitlements.c.starts_at == entitlements.c.ordered_at,
                        ),
                        or_(entitlements.c.ends_at.is_(None), entitlements.c.ends_at > now),
                    )
                )
                .order_by(entitlements.c.device_id, entitlements.c.product_id)
            ).all()
        by_device = {
            device_id: tuple(row.product_id for row in rows)
            for device_id, rows in groupby(held, key=lambda row: row.device_id)
        }
        for device_id in ids:
            yield device_id, by_device.get(device_id, ())
        after = ids[-1]
