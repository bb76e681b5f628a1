"""Reads whose SQL is put together once, and many of them sent at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    func,
    literal_column,
    select,
    type_coerce,
)

from portcullis.store.bulk import ROW, CutShortError, as_text, packed, unpacked, values_of
from portcullis.store.database import utc_now
from portcullis.store.schema import UtcDateTime

NOTHING = "(NULL)"
"""An empty `listing`: what stands in one of its places has a reading find nothing, unasked."""


def place(name: str) -> ColumnElement[Any]:
    """Where each run of a reading has SQL of its own, which `bulk` makes of values."""
    return literal_column(f"{{{name}}}")


def is_in(column: Column[Any], name: str) -> ColumnElement[bool]:
    """The condition that a column has one of the values in a place, a `listing`."""
    return column.bool_op("IN")(place(name))


class Reading:
    """Columns, and which rows of them, in no order.

    The columns are integers, times, bytes, or strings without "|" and line feeds. source: what they
    are read from, if not from the tables of the columns. lock: the rows stay ours until the
    transaction ends.
    """

    def __init__(
        self,
        columns: Sequence[ColumnElement[Any]],
        *conditions: ColumnElement[bool],
        source: FromClause | None = None,
        lock: bool = False,
    ) -> None:
        self.columns = tuple(columns)
        self._conditions = conditions
        self._source = source
        self._lock = lock
        self._sql: dict[str, str] = {}  # by dialect

    def of(self, **places: str) -> "Asked":
        """Ask for the rows that these places tell."""
        return Asked(self, places)

    def sql(self, connection: Connection) -> str:
        """The statement, its places open: one text of all rows on MySQL and MariaDB, else rows."""
        name = connection.dialect.name
        if name not in self._sql:
            columns = (
                [func.concat_ws(ROW, func.count(), packed(self.columns))]
                if name == "mysql"
                else map(as_text, self.columns)
            )
            query = select(*columns).where(*self._conditions)
            if self._source is not None:
                query = query.select_from(self._source)
            if self._lock:
                query = query.with_for_update()
            compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
            self._sql[name] = str(compiled)
        return self._sql[name]


NOW = Reading((type_coerce(utc_now(), UtcDateTime()),))
"""The database's time."""


@dataclass(frozen=True)
class Asked:
    """A reading with its places filled."""

    reading: Reading
    places: Mapping[str, str]

    @property
    def is_for_nothing(self) -> bool:
        """Whether no row can be meant."""
        return NOTHING in self.places.values()

    def sql(self, connection: Connection) -> str:
        """The statement."""
        return self.reading.sql(connection).format_map(self.places)


def read(connection: Connection, *asked: Asked) -> list[list[list[Any]]]:
    """Read by column what each asks for, in one statement where the server is MySQL or MariaDB.

    Raises CutShortError.
    """
    found = iter(_found(connection, [one for one in asked if not one.is_for_nothing]))
    return [
        [[] for _ in one.reading.columns] if one.is_for_nothing else next(found) for one in asked
    ]


def _found(connection: Connection, asked: Sequence[Asked]) -> list[list[list[Any]]]:
    if connection.dialect.name != "mysql":
        return [_rows_read(connection, one) for one in asked]
    if not asked:
        return []
    texts = ", ".join(f"({one.sql(connection)})" for one in asked)
    row = connection.exec_driver_sql(f"SELECT {texts}").one()
    return [_unpacked(one.reading, value) for one, value in zip(asked, row, strict=True)]


def _unpacked(reading: Reading, value: str | bytes | None) -> list[list[Any]]:
    if value is None:
        raise CutShortError(f"the rows of {reading.columns[0]}")
    text = value.decode() if isinstance(value, bytes) else value
    count, _, rows = text.partition(ROW)
    return unpacked(reading.columns, int(count), rows)


def _rows_read(connection: Connection, asked: Asked) -> list[list[Any]]:
    rows = connection.exec_driver_sql(asked.sql(connection)).all()
    columns = asked.reading.columns
    by_column = list(zip(*rows, strict=True)) or [() for _ in columns]
    return [
        values_of(column, list(values)) for column, values in zip(columns, by_column, strict=True)
    ]
