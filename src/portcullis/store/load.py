"""All EMMs, for a cycler that starts: by pages of devices, long aired states apart from the rest.

Of a state that was first aired long ago the section alone is wanted. On MySQL a page of them
comes as one value: a row each would cost the driver ten times what the server takes to read it.
"""

from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    and_,
    case,
    func,
    literal_column,
    not_,
    select,
)

from portcullis.store.airable import AirableEmm
from portcullis.store.feed import COLUMNS, airable
from portcullis.store.schema import emms


class Page(NamedTuple):
    """All EMMs of the devices `after < device_id <= up_to`.

    Attributes:
        states: the sections of the long aired states, one behind the other.
        rows: the other EMMs.
    """

    after: int
    up_to: int
    states: bytes
    rows: list[AirableEmm]


def read_page(engine: Engine, after: int, emms_in_page: int, settled_before: float) -> Page | None:
    """Read the page behind device `after`; None: there is none.

    `settled_before` (Unix seconds): when a state was first aired that counts as long aired.
    """
    with engine.connect() as connection:
        up_to = end_of_page(connection, after, emms_in_page)
        if up_to is None:
            return None
        states, others = page_states(connection, after, up_to, settled_before)
        if states is None:
            return Page(after, up_to, b"", page_rows(connection, after, up_to, None))
        rows = page_rows(connection, after, up_to, settled_before) if others else []
        return Page(after, up_to, states, rows)


def all_rows(engine: Engine, page: Page) -> list[AirableEmm]:
    """All EMMs of a page as rows."""
    with engine.connect() as connection:
        return page_rows(connection, page.after, page.up_to, None)


def end_of_page(connection: Connection, after: int, emms_in_page: int) -> int | None:
    """The last device of the page behind device `after`; None: there is none behind it.

    The page holds all EMMs of its devices, so it may be a little longer than asked for.
    """
    behind = select(emms.c.device_id).where(emms.c.device_id > after)
    ends = behind.order_by(emms.c.device_id).offset(emms_in_page - 1).limit(1)
    last: int | None = connection.execute(ends).scalar_one_or_none()
    if last is None:
        last = connection.execute(select(func.max(behind.subquery().c.device_id))).scalar_one()
    return last


def page_states(
    connection: Connection, after: int, up_to: int, settled_before: float
) -> tuple[bytes | None, int]:
    """The sections of the states first aired before that (Unix seconds), one behind the other.

    None: they are more than the server gives in one value. And how many other EMMs there are.
    """
    is_settled = _is_settled(settled_before)
    section = case((is_settled, emms.c.section))
    size = func.coalesce(func.sum(func.length(section)), 0)
    others = func.count(case((not_(is_settled), 1)))
    here = _in_page(after, up_to)
    if connection.dialect.name != "mysql":
        rows = connection.execute(select(emms.c.section).where(here, is_settled)).scalars()
        return b"".join(rows), connection.execute(select(others).where(here)).scalar_one()
    sections = func.group_concat(section.op("SEPARATOR")(literal_column("''")))
    found = connection.execute(select(others, size, sections).where(here)).one()
    data: bytes = found[2] or b""
    return data if len(data) == found[1] else None, found[0]


def page_rows(
    connection: Connection, after: int, up_to: int, settled_before: float | None
) -> list[AirableEmm]:
    """The rows of the page that `page_states` leaves out; without `settled_before` all of them."""
    here = _in_page(after, up_to)
    if settled_before is not None:
        here = and_(here, not_(_is_settled(settled_before)))
    return [airable(row) for row in connection.execute(select(*COLUMNS).where(here))]


def _in_page(after: int, up_to: int) -> ColumnElement[bool]:
    return and_(emms.c.device_id > after, emms.c.device_id <= up_to, emms.c.tombstone == 0)


def _is_settled(before: float) -> ColumnElement[bool]:
    """Whether an EMM is a state first aired before that; never NULL."""
    return and_(
        emms.c.message_id == 0,
        emms.c.starts_at.is_(None),
        emms.c.ends_at.is_(None),
        emms.c.first_aired_at.is_not(None),
        emms.c.first_aired_at < datetime.fromtimestamp(before, UTC),
    )
