"""Monthly partitions of `requests` on MySQL: ranges of the UUIDv7 id itself (RFC 9562 5.7)."""

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import Engine, text

MONTHS_AHEAD = 3
_REST = "p_rest"


def month_after(moment: datetime) -> datetime:
    """The first instant of the next month."""
    first = moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)


def first_id(moment: datetime) -> str:
    """The lowest UUIDv7, in hex, that any request at or after `moment` can have."""
    return f"{int(moment.timestamp() * 1000):012x}".ljust(32, "0")


def plan(partitions: Mapping[str, str], now: datetime, keep_from: datetime) -> list[str]:
    """What ALTER TABLE is to do. `partitions`: name → the id it lies below, p_rest left out.

    The months to come are split off p_rest before they begin; a partition is dropped when all
    of it is older than `keep_from`.
    """
    actions = []
    newest = max(partitions.values(), default="")
    month = now.astimezone(UTC)
    coming = []
    for _ in range(MONTHS_AHEAD):
        end = month_after(month)
        if first_id(end) > newest:
            coming.append(f"PARTITION p{month:%Y%m} VALUES LESS THAN ('{first_id(end)}')")
        month = end
    if coming:
        coming.append(f"PARTITION {_REST} VALUES LESS THAN (MAXVALUE)")
        actions.append(f"REORGANIZE PARTITION {_REST} INTO ({', '.join(coming)})")
    old = sorted(name for name, below in partitions.items() if below <= first_id(keep_from))
    if old:
        actions.append(f"DROP PARTITION {', '.join(old)}")
    return actions


def maintain_partitions(engine: Engine, now: datetime, keep_from: datetime) -> list[str]:
    """Bring the partitions to what the plan says; returns what was done (SQLite: nothing)."""
    if engine.dialect.name != "mysql":
        return []
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT PARTITION_NAME, PARTITION_DESCRIPTION FROM information_schema.PARTITIONS"
                " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'requests'"
            )
        ).all()
        partitions = {name: below.strip("'") for name, below in rows if name != _REST}
        actions = plan(partitions, now, keep_from)
        for action in actions:
            connection.execute(text(f"ALTER TABLE requests {action}"))
        return actions
