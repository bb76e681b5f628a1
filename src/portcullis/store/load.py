"""All EMMs, for a cycler that starts: by pages of devices, long aired states apart from the rest.

Of a state that was first aired long ago the section alone is wanted. On MySQL a page of them
comes as one value: a row each would cost the driver ten times what the server takes to read it.
"""

from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Engine, and_, func, not_, select, text

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
    up_to = end_of_page(engine, after, emms_in_page)
    if up_to is None:
        return None
    states = page_states(engine, after, up_to, settled_before)
    rows = page_rows(engine, after, up_to, None if states is None else settled_before)
    return Page(after, up_to, states or b"", rows)


def end_of_page(engine: Engine, after: int, emms_in_page: int) -> int | None:
    """The last device of the page behind device `after`; None: there is none behind it.

    The page holds all EMMs of its devices, so it may be a little longer than asked for.
    """
    behind = select(emms.c.device_id).where(emms.c.device_id > after)
    ends = behind.order_by(emms.c.device_id).offset(emms_in_page - 1).limit(1)
    with engine.connect() as connection:
        last: int | None = connection.execute(ends).scalar_one_or_none()
        if last is None:
            last = connection.execute(select(func.max(behind.subquery().c.device_id))).scalar_one()
        return last


def page_states(engine: Engine, after: int, up_to: int, settled_before: float) -> bytes | None:
    """The sections of the states first aired before that (Unix seconds), one behind the other.

    None: they are more than the server gives in one value.
    """
    here = and_(_in_page(after, up_to), _is_settled(settled_before))
    with engine.connect() as connection:
        if connection.dialect.name != "mysql":
            rows = connection.execute(select(emms.c.section).where(here))
            return b"".join(rows.scalars())
        size, sections = connection.execute(
            select(
                func.coalesce(func.sum(func.length(emms.c.section)), 0),
                func.group_concat(text("emms.section SEPARATOR ''")),
            ).where(here)
        ).one()
        data = sections or b""
        return data if len(data) == size else None


def page_rows(
    engine: Engine, after: int, up_to: int, settled_before: float | None
) -> list[AirableEmm]:
    """The rows of the page that `page_states` leaves out; without `settled_before` all of them."""
    here = _in_page(after, up_to)
    if settled_before is not None:
        here = and_(here, not_(func.coalesce(_is_settled(settled_before), False)))
    with engine.connect() as connection:
        return [airable(row) for row in connection.execute(select(*COLUMNS).where(here))]


def _in_page(after: int, up_to: int) -> ColumnElement[bool]:
    return and_(emms.c.device_id > after, emms.c.device_id <= up_to, emms.c.tombstone == 0)


def _is_settled(before: float) -> ColumnElement[bool]:
    return and_(
        emms.c.message_id == 0,
        emms.c.starts_at.is_(None),
        emms.c.ends_at.is_(None),
        emms.c.first_aired_at.is_not(None),
        emms.c.first_aired_at < datetime.fromtimestamp(before, UTC),
    )
