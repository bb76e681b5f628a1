"""What monitoring asks of the tables: each a count or a minimum over an index."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine, func, select

from portcullis.store.database import database_now
from portcullis.store.schema import (
    PRIORITY_ORDER,
    PRIORITY_REKEY,
    PRIORITY_RESEAL,
    device_work,
)

_CAUSES = {PRIORITY_ORDER: "order", PRIORITY_REKEY: "rekey", PRIORITY_RESEAL: "reseal"}


@dataclass(frozen=True)
class QueueFigures:
    """The work queue at one moment.

    oldest_order_s: how long the oldest order has waited to be sealed; 0 when none does.
    waiting: cause → devices to be sealed.
    failed: devices given up.
    """

    oldest_order_s: float
    waiting: Mapping[str, int]
    failed: int


def queue_figures(engine: Engine) -> QueueFigures:
    """Read the state of the work queue."""
    work = device_work.c
    with engine.connect() as connection:
        counts = connection.execute(
            select(work.priority, func.count())
            .where(work.priority.in_(_CAUSES), work.due_at.is_not(None))
            .group_by(work.priority)
        )
        waiting = dict.fromkeys(_CAUSES.values(), 0)
        waiting |= {_CAUSES[priority]: count for priority, count in counts}
        oldest = connection.execute(
            select(func.min(work.dirty_at)).where(
                work.priority == PRIORITY_ORDER, work.due_at.is_not(None)
            )
        ).scalar_one()
        failed = connection.execute(
            select(func.count()).select_from(device_work).where(work.failed_at.is_not(None))
        ).scalar_one()
        age_s = 0.0 if oldest is None else (database_now(connection) - oldest).total_seconds()
        return QueueFigures(max(age_s, 0.0), waiting, failed)
