"""Requests beyond their retention: read month by month for the archive, then taken out.

Nothing else deletes requests. A slice is a month's partition (MySQL), or the month itself
(SQLite): it goes as a whole, or stays as a whole, so that a slice that is still there has all
its rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine, RowMapping, and_, delete, func, select, text

from portcullis.runtime.errors import PortcullisError
from portcullis.store.database import writing
from portcullis.store.partitions import first_id, month_after, requests_partitions
from portcullis.store.schema import airings, requests

_PAGE = 1000


class SliceChangedError(PortcullisError):
    """The rows of a slice are not those that were archived: it stays."""


@dataclass(frozen=True)
class Slice:
    """Requests with `first_id <= request_id < below_id`. name: year and month, "202601"."""

    name: str
    first_id: str
    below_id: str


def due_slices(engine: Engine, keep_from: datetime) -> list[Slice]:
    """The slices all of which is older than `keep_from`, oldest first."""
    if engine.dialect.name == "mysql":
        found = []
        lowest = ""
        for name, below in sorted(requests_partitions(engine).items(), key=lambda one: one[1]):
            found.append(Slice(name.removeprefix("p"), lowest, below))
            lowest = below
    else:
        found = list(_months(engine, keep_from))
    return [one for one in found if one.below_id <= first_id(keep_from)]


def _months(engine: Engine, keep_from: datetime) -> Iterator[Slice]:
    oldest = oldest_request_at(engine)
    while oldest is not None and oldest < keep_from:
        end = month_after(oldest)
        start = oldest.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        yield Slice(f"{oldest:%Y%m}", first_id(start), first_id(end))
        oldest = end


def oldest_request_at(engine: Engine) -> datetime | None:
    """The time in the id of the oldest request; None without any."""
    with engine.connect() as connection:
        oldest = connection.execute(select(func.min(requests.c.request_id))).scalar_one()
    return None if oldest is None else datetime.fromtimestamp(int(oldest[:12], 16) / 1000, UTC)


def read_slice(engine: Engine, one: Slice) -> Iterator[Sequence[RowMapping]]:
    """Read a slice in order of id, page by page.

    A row has the columns of `requests`, and `sealed_at` and `first_aired_at` of the first airing
    that covers the order.
    """
    message_id = func.coalesce(requests.c.message_id, 0)
    covering = (
        select(func.min(airings.c.wanted))
        .where(
            airings.c.device_id == requests.c.device_id,
            airings.c.message_id == message_id,
            airings.c.wanted >= requests.c.wanted,
        )
        .scalar_subquery()
    )
    after = ""
    while True:
        page = (
            select(requests, covering.label("covering"))
            .where(
                requests.c.request_id >= one.first_id,
                requests.c.request_id > after,
                requests.c.request_id < one.below_id,
            )
            .order_by(requests.c.request_id)
            .limit(_PAGE)
            .subquery()
        )
        statement = (
            select(page, airings.c.sealed_at, airings.c.first_aired_at)
            .outerjoin(
                airings,
                and_(
                    airings.c.device_id == page.c.device_id,
                    airings.c.message_id == func.coalesce(page.c.message_id, 0),
                    airings.c.wanted == page.c.covering,
                ),
            )
            .order_by(page.c.request_id)
        )
        with engine.connect() as connection:
            rows = connection.execute(statement).mappings().all()
        if not rows:
            return
        yield rows
        after = rows[-1]["request_id"]


def drop_slice(engine: Engine, one: Slice, rows: int) -> None:
    """Take a slice out of the database; raises SliceChangedError unless it has `rows` rows."""
    inside = and_(requests.c.request_id >= one.first_id, requests.c.request_id < one.below_id)
    with writing(engine) as connection:
        found = connection.execute(
            select(func.count()).select_from(requests).where(inside)
        ).scalar_one()
        if found != rows:
            raise SliceChangedError(f"requests of {one.name}: {rows} archived, {found} there")
        if engine.dialect.name != "mysql":
            connection.execute(delete(requests).where(inside))
    if engine.dialect.name == "mysql":
        # After the commit: a scheduler that has lost its lease does not come here.
        with engine.connect() as connection:
            connection.execute(text(f"ALTER TABLE requests DROP PARTITION p{one.name}"))
