"""What the cycler reads of `emms`, and the first airings it writes back.

`feed.revision` is written last before every commit that changes `emms`, under
its row lock, so revision order is commit order: whoever has all up to R and
reads `mine < revision <= R` has missed nothing. Tombstones stay an hour; a
new timeline, or an absence longer than that, calls for all of it again.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from portcullis.store.airable import AirableEmm, EmmKey, FirstAiring
from portcullis.store.bulk import listing, literal
from portcullis.store.database import as_time, chunked, read_only, retried, utc_now, writing
from portcullis.store.schema import emms, feed
from portcullis.store.servers import hurry

TOMBSTONE_HORIZON_S = 3600.0
_ROWS_PER_STATEMENT = 200
_FEW_REVISIONS = 4


class FeedPosition(NamedTuple):
    """Where the feed stood at `database_time` (aware, UTC)."""

    timeline: int
    revision: int
    database_time: datetime


_POSITION = select(
    feed.c.timeline, feed.c.revision, utc_now().label("now"), read_only().label("read_only")
)
COLUMNS = [emms.c[name] for name in AirableEmm._fields]


class FeedWatch:
    """Looks at the feed again and again, each time with one statement, on a connection it keeps.

    A server that has become a replica is left for the one that takes writes, and one that hangs
    is lost, as when a connection leaves the pool.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._statement = str(_POSITION.compile(engine))
        self._connection: Connection | None = None

    def position(self) -> FeedPosition:
        """Read the feed's row and the database's clock; raises SQLAlchemyError."""
        timeline, revision, now, is_read_only = self._look()
        if is_read_only:
            self.close()
            timeline, revision, now, _ = self._look()
        return FeedPosition(timeline, revision, as_time(now))

    def close(self) -> None:
        """Give the connection up, until the next look."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _look(self) -> Sequence[Any]:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
                self._connection.execution_options(isolation_level="AUTOCOMMIT")
                self._connection.detach()
                if self._engine.dialect.name == "mysql":
                    hurry(self._connection.connection.dbapi_connection)
            return self._ask(self._connection)
        except SQLAlchemyError:
            self.close()
            raise

    def _ask(self, connection: Connection) -> Sequence[Any]:
        """Ask as the driver does, which costs half as much; where it fails, SQLAlchemy says why."""
        cursor = connection.connection.cursor()
        row: Sequence[Any]
        try:
            cursor.execute(self._statement)
            (row,) = cursor.fetchall()
        except self._engine.dialect.loaded_dbapi.Error:
            row = connection.execute(_POSITION).one()
            connection.rollback()  # a statement to SQLite alone
        else:
            cursor.close()
        return row


def changes(engine: Engine, after: int, up_to: int) -> list[AirableEmm]:
    """Read the rows, tombstones too, with `after < revision <= up_to`, oldest change first.

    A row that has meanwhile moved beyond `up_to` comes with the next call.
    """
    statement = (
        select(*COLUMNS)
        .where(emms.c.revision > after, emms.c.revision <= up_to)
        .order_by(emms.c.revision, emms.c.device_id, emms.c.message_id, emms.c.part)
    )
    with engine.connect() as connection:
        return [airable(row) for row in connection.execute(statement)]


def next_changes(
    engine: Engine, after: int, up_to: int, at_least: int
) -> tuple[int, list[AirableEmm]]:
    """Read the first of the `changes`: whole revisions, of so many rows together if there are.

    Returns up to which revision they are, and the rows. A few revisions are not cut.
    """
    if up_to - after <= _FEW_REVISIONS:
        return up_to, changes(engine, after, up_to)
    ends = (
        select(emms.c.revision)
        .where(emms.c.revision > after, emms.c.revision <= up_to)
        .order_by(emms.c.revision)
        .offset(at_least - 1)
        .limit(1)
    )
    with engine.connect() as connection:
        end = connection.execute(ends).scalar_one_or_none()
    end = up_to if end is None else end
    return end, changes(engine, after, end)


def first_aired_times(engine: Engine, keys: Sequence[EmmKey]) -> list[tuple[EmmKey, int, float]]:
    """Say which of these EMMs have been aired: key, revision, Unix seconds."""
    found = []
    columns = (emms.c.device_id, emms.c.message_id, emms.c.part)
    for chunk in chunked(keys, _ROWS_PER_STATEMENT):
        statement = select(*columns, emms.c.revision, emms.c.first_aired_at).where(
            emms.c.device_id.in_({key[0] for key in chunk}),
            tuple_(*columns).in_(chunk),
            emms.c.first_aired_at.is_not(None),
        )
        with engine.connect() as connection:
            found += [
                ((row[0], row[1], row[2]), row[3], row[4].timestamp())
                for row in connection.execute(statement)
            ]
    return found


@retried
def write_first_airings(engine: Engine, aired: Sequence[FirstAiring]) -> None:
    """Set `first_aired_at` of the EMMs and of the orders they cover, where it is not set yet."""
    ordered = sorted(aired, key=lambda one: (one.device_id, one.message_id, one.aired_at))
    for chunk in chunked(ordered, _ROWS_PER_STATEMENT):
        complete = [one for one in chunk if one.completes_set]
        with writing(engine) as connection:
            connection.exec_driver_sql(_set_aired("emms", chunk, _IS_EMM))
            if complete:
                connection.exec_driver_sql(_set_aired("airings", complete, _IS_COVERED))


_IS_EMM = "device_id={0} AND message_id={1} AND part={2} AND revision={3}"
_IS_COVERED = "device_id={0} AND message_id={1} AND wanted<={4}"


def _set_aired(table: str, aired: Sequence[FirstAiring], condition: str) -> str:
    """One statement, as text: SQLAlchemy would take longer over it than all else takes.

    Of the devices' rows that have not been aired, those that no condition names stay so: NULL.
    """
    cases = " ".join(
        f"WHEN {condition.format(*map(int, one[:5]))} THEN {literal(_utc(one.aired_at))}"
        for one in aired
    )
    devices = listing({one.device_id for one in aired})
    return (
        f"UPDATE {table} SET first_aired_at = CASE {cases} END"  # noqa: S608 (integers and times)  # nosec B608
        f" WHERE device_id IN {devices} AND first_aired_at IS NULL"
    )


def airable(row: Row[tuple[object, ...]]) -> AirableEmm:
    """A row of COLUMNS."""
    emm = AirableEmm._make(row)
    return emm._replace(
        tombstone=bool(emm.tombstone),
        starts_at=_unix(row.starts_at),
        ends_at=_unix(row.ends_at),
        first_aired_at=_unix(row.first_aired_at),
        ordered_at=_unix(row.ordered_at),
    )


def _unix(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _utc(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
