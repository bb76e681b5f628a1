"""Many rows in one statement or one value: what a driver and SQLAlchemy do a row at a time.

Values become SQL text here and nowhere else: numbers, times, strings of printable ASCII without
what could end a literal or be taken for a placeholder, and all others in hex, so that nothing that
came from outside can be read as SQL.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from types import NoneType
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    String,
    Table,
    func,
    literal_column,
)

from portcullis.store.schema import UtcDateTime

FIELD, ROW = "|", "\n"
_END = ";\n"
_CLOSE = 4
"""Rows walked through for each one wanted, at most."""
_STATEMENT_CHARS = 1 << 20  # of a server's max_allowed_packet, 16 MiB by default

Reader = Callable[[Any], Any]
Value = datetime | bytes | str | int | None


class CutShortError(ValueError):
    """What came as one value is not the rows there are: max_allowed_packet, or "|" in a string."""


def literal(value: Value) -> str:
    """A value as MySQL, MariaDB and SQLite read it."""
    return _LITERALS[type(value)](value)


_is_harmless = re.compile(r"[ -$&(-\[\]-~]*").fullmatch  # neither "%" nor "'" nor "\"


def _text_literal(value: str) -> str:
    return f"'{value}'" if _is_harmless(value) else f"CAST(x'{value.encode().hex()}' AS CHAR)"


@lru_cache
def _time_literal(value: datetime) -> str:
    return f"'{value.astimezone(UTC).replace(tzinfo=None).isoformat(' ', 'microseconds')}'"


_LITERALS: Mapping[type, Callable[[Any], str]] = {
    str: _text_literal,
    int: str,
    bool: lambda value: str(int(value)),
    NoneType: lambda _value: "NULL",
    datetime: _time_literal,
    bytes: lambda value: f"x'{value.hex()}'",
}


def row_of(*values: Value) -> str:
    """The values of one row, for `put`."""
    return f"({','.join([_LITERALS[type(value)](value) for value in values])})"


def listing(ids: Iterable[int]) -> str:
    """Integers as the right side of IN."""
    return f"({','.join(map(str, map(int, ids))) or 'NULL'})"


def among(column: str, ids: Iterable[int], *, locks: bool = False) -> str:
    """The condition that a column of integers has one of the values; false where there are none.

    Values that lie close together are walked through, first to last: that costs a server half of
    looking each of them up. locks: for a read that would wait for rows in between, as others may
    hold them; an UPDATE does not.
    """
    wanted = sorted(set(map(int, ids)))
    close = 1 if locks else _CLOSE
    if not wanted or wanted[-1] - wanted[0] >= close * len(wanted):
        return f"{column} IN {listing(wanted)}"
    span = f"{column} BETWEEN {wanted[0]} AND {wanted[-1]}"
    if wanted[-1] - wanted[0] < len(wanted):
        return span
    # An index cannot be asked for an expression: the optimizer keeps to the span.
    return f"{span} AND {column} + 0 IN {listing(wanted)}"


class Script:
    """Statements that change rows, run in order: together, where the server is MySQL or MariaDB.

    The first that fails ends them, and is raised.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._is_mysql = connection.dialect.name == "mysql"
        self._statements: list[str] = []

    def add(self, statement: str) -> None:
        """Have a statement run behind those before it."""
        self._statements.append(statement)

    def put(
        self, table: Table, columns: Sequence[str], rows: Sequence[str], update: Sequence[str] = ()
    ) -> None:
        """INSERT rows, each "(…)" of literals; where the key is there, take the `update` columns.

        Without `update` a key that is there raises IntegrityError.
        """
        if not rows:
            return
        head = f"INSERT INTO {_quoted(table.name)} ({','.join(columns)}) VALUES "  # noqa: S608 (names of ours, literals)  # nosec B608
        tail = ""
        if update and self._is_mysql:
            sets = ",".join(f"{name}=VALUES({name})" for name in update)
            tail = f" ON DUPLICATE KEY UPDATE {sets}"
        elif update:
            key = ",".join(column.name for column in table.primary_key.columns)
            sets = ",".join(f"{name}=excluded.{name}" for name in update)
            tail = f" ON CONFLICT ({key}) DO UPDATE SET {sets}"  # nosec B608
        self._statements += [f"{head}{','.join(some)}{tail}" for some in _portions(rows)]

    def run(self) -> None:
        """Run what was added."""
        statements, self._statements = self._statements, []
        if not self._is_mysql:
            for statement in statements:
                self._connection.exec_driver_sql(statement)
            return
        for some in _portions(statements):
            self._connection.exec_driver_sql(_END.join(some))


def put(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    rows: Sequence[str],
    update: Sequence[str] = (),
) -> None:
    """Run a script that only puts rows."""
    script = Script(connection)
    script.put(table, columns, rows, update)
    script.run()


def _portions(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut what is joined into pieces that a server takes."""
    start = chars = 0
    for end, text in enumerate(texts):
        if chars and chars + len(text) > _STATEMENT_CHARS:
            yield texts[start:end]
            start, chars = end, 0
        chars += len(text)
    if texts:
        yield texts[start:]


def unpacked(columns: Sequence[ColumnElement[Any]], count: int, text: str) -> list[list[Any]]:
    """The columns of so many rows, as `packed` gave them; raises CutShortError."""
    if not count:
        return [[] for _ in columns]
    found = text.replace(ROW, FIELD).split(FIELD)
    width = len(columns)
    if len(found) != count * width:
        raise CutShortError(f"{count} rows of {width} columns, {columns[0]} first")
    return [values_of(column, found[i::width]) for i, column in enumerate(columns)]


@lru_cache(maxsize=64)  # the columns are those of few statements
def packed(columns: tuple[ColumnElement[Any], ...]) -> ColumnElement[str]:
    """All rows as one text."""
    row = func.concat_ws(FIELD, *map(as_text, columns))
    return func.group_concat(row.op("SEPARATOR")(literal_column(f"'{ROW}'")))


def as_text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A column as `values_of` takes it: bytes in hex, nothing as an empty text."""
    value: ColumnElement[Any] = column
    if isinstance(column.type, LargeBinary):
        # GROUP_CONCAT of what may be longer than 512 makes a temporary table: half a millisecond,
        # though there be no row. The column itself may be longer for the server.
        most = column.type.length
        value = func.hex(column if most is None else func.substr(column, 1, most))
    return func.coalesce(value, "") if _is_nullable(column) else value


def _is_nullable(column: ColumnElement[Any]) -> bool:
    return not isinstance(column, Column) or bool(column.nullable)


def values_of(column: ColumnElement[Any], values: list[str]) -> list[Any]:
    """The values of a column that was read as text."""
    reader = next(reader for kind, reader in _READERS if isinstance(column.type, kind))
    if _is_nullable(column) and "" in values:
        return [reader(value) if value else None for value in values]
    return list(map(reader, values))


@lru_cache(maxsize=1024)  # many rows were written at one time
def _time(value: str) -> datetime:
    return datetime.fromisoformat(value).replace(tzinfo=UTC)


_READERS: Sequence[tuple[type, Reader]] = (
    (Integer, int),
    (UtcDateTime, _time),
    (LargeBinary, bytes.fromhex),
    (String, str),
)


def _quoted(table: str) -> str:
    return f"`{table}`"
