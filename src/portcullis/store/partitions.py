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


def plan(partitions: Mapping[str, str], now: datetime) -> str | None:
    """What ALTER TABLE is to do: split the months to come off p_rest before they begin.

    `partitions`: name → the id it lies below, p_rest left out.
    """
    newest = max(partitions.values(), default="")
    month = now.astimezone(UTC)
    coming = []
    for _ in range(MONTHS_AHEAD):
        end = month_after(month)
        if first_id(end) > newest:
            coming.append(f"PARTITION p{month:%Y%m} VALUES LESS THAN ('{first_id(end)}')")
        month = end
    if not coming:
        return None
    coming.append(f"PARTITION {_REST} VALUES LESS THAN (MAXVALUE)")
    return f"REORGANIZE PARTITION {_REST} INTO ({', '.join(coming)})"


def requests_partitions(engine: Engine) -> dict[str, str]:
    """The partitions of `requests` on MySQL: name → the id it lies below, p_rest left out."""
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT PARTITION_NAME, PARTITION_DESCRIPTION FROM information_schema.PARTITIONS"
                " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'requests'"
            )
        ).all()
    return {name: below.strip("'") for name, below in rows if name != _REST}


def split_off_months(engine: Engine, now: datetime) -> str | None:
    """Have a partition for each month to come; returns what was done (SQLite: nothing)."""
    if engine.dialect.name != "mysql":
        return None
    action = plan(requests_partitions(engine), now)
    if action is not None:
        with engine.connect() as connection:
            connection.execute(text(f"ALTER TABLE requests {action}"))
    return action
