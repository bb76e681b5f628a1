"""Many rows in one statement or one value: what a driver and SQLAlchemy do a row at a time.

Values become SQL text here and nowhere else: numbers, times, strings of printable ASCII without
what could end a literal or be taken for a placeholder, and all others in hex, so that nothing that
came from outside can be read as SQL.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Dialect,
    FromClause,
    Integer,
    LargeBinary,
    Select,
    String,
    Table,
    and_,
    bindparam,
    func,
    literal_column,
    select,
)
from sqlalchemy.types import UserDefinedType

from portcullis.store.schema import UtcDateTime

_FIELD, _ROW = "|", "\n"
_CLOSE = 4
"""Rows walked through for each one wanted, at most."""
_STATEMENT_CHARS = 1 << 20  # of a server's max_allowed_packet, 16 MiB by default

Reader = Callable[[Any], Any]
Value = datetime | bytes | str | int | None


class CutShortError(ValueError):
    """What came as one value is not the rows there are: max_allowed_packet, or "|" in a string."""


def literal(value: Value) -> str:
    """A value as MySQL, MariaDB and SQLite read it."""
    match value:
        case str() if _is_harmless(value):
            return f"'{value}'"
        case int():
            return str(int(value))
        case None:
            return "NULL"
        case datetime():
            return _time_literal(value)
        case bytes():
            return f"x'{value.hex()}'"
        case str():
            return f"CAST(x'{value.encode().hex()}' AS CHAR)"


def _is_harmless(text: str) -> bool:
    return (
        text.isascii()
        and text.isprintable()
        and "'" not in text
        and "\\" not in text
        and "%" not in text
    )


@lru_cache
def _time_literal(value: datetime) -> str:
    return f"'{value.astimezone(UTC).replace(tzinfo=None).isoformat(' ', 'microseconds')}'"


def row_of(*values: Value) -> str:
    """The values of one row, for `put`."""
    return f"({','.join(map(literal, values))})"


class _Literal(UserDefinedType[str]):
    """SQL of this module, put in when a statement is run: what was compiled serves all values."""

    cache_ok = True

    def literal_processor(self, dialect: Dialect) -> Callable[[str], str]:
        del dialect
        return str


def is_one_of(column: Column[Any], ids: Iterable[int]) -> ColumnElement[bool]:
    """The condition that a column of integers has one of the values; false where there are none."""
    listed = bindparam(None, listing(ids), type_=_Literal(), literal_execute=True, unique=True)
    return column.bool_op("IN")(listed)


def listing(ids: Iterable[int]) -> str:
    """Integers as the right side of IN."""
    return f"({','.join(map(str, map(int, ids))) or 'NULL'})"


def is_among(column: Column[Any], ids: Iterable[int]) -> ColumnElement[bool]:
    """As `is_one_of`, but values that lie close together are walked through, first to last.

    That costs a server half of looking each of them up. A locking read would wait for the rows in
    between that another holds: only for reads without locks, and for an UPDATE, which does not.
    """
    wanted = sorted(set(map(int, ids)))
    if not wanted or wanted[-1] - wanted[0] >= _CLOSE * len(wanted):
        return is_one_of(column, wanted)
    ends = f"{wanted[0]} AND {wanted[-1]}"
    span = column.bool_op("BETWEEN")(
        bindparam(None, ends, type_=_Literal(), literal_execute=True, unique=True)
    )
    if wanted[-1] - wanted[0] < len(wanted):
        return span
    listed = bindparam(None, listing(wanted), type_=_Literal(), literal_execute=True, unique=True)
    # An index cannot be asked for an expression: the optimizer keeps to the span.
    return and_(span, (column + 0).bool_op("IN")(listed))


def put(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    rows: Sequence[str],
    update: Sequence[str] = (),
) -> None:
    """INSERT rows, each "(…)" of literals; where the key is there, take the `update` columns.

    Without `update` a key that is there raises IntegrityError.
    """
    is_mysql = connection.dialect.name == "mysql"
    head = f"INSERT INTO {_quoted(table.name)} ({','.join(columns)}) VALUES "  # noqa: S608 (names of ours, literals)  # nosec B608
    tail = ""
    if update and is_mysql:
        sets = ",".join(f"{name}=VALUES({name})" for name in update)
        tail = f" ON DUPLICATE KEY UPDATE {sets}"
    elif update:
        key = ",".join(column.name for column in table.primary_key.columns)
        sets = ",".join(f"{name}=excluded.{name}" for name in update)
        tail = f" ON CONFLICT ({key}) DO UPDATE SET {sets}"  # nosec B608
    for some in _statements(rows):
        connection.exec_driver_sql(f"{head}{','.join(some)}{tail}")


def _statements(rows: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut rows into statements that a server takes."""
    start = chars = 0
    for end, row in enumerate(rows):
        if chars and chars + len(row) > _STATEMENT_CHARS:
            yield rows[start:end]
            start, chars = end, 0
        chars += len(row)
    if rows:
        yield rows[start:]


def get(
    connection: Connection,
    columns: Sequence[ColumnElement[Any]],
    *conditions: ColumnElement[bool],
    source: FromClause | None = None,
    lock: bool = False,
) -> list[list[Any]]:
    """Read rows by column, all of them in one value where the server is MySQL or MariaDB.

    The columns are integers, times, bytes, or strings without "|" and line feeds. Rows come in no
    order. source: what they are read from, if not from the tables of the columns. lock: they stay
    ours until the transaction ends. Raises CutShortError.
    """
    if connection.dialect.name != "mysql":
        rows = connection.execute(_of(select(*columns), source).where(*conditions)).all()
        return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in columns]
    query = _of(select(func.count(), _packed(tuple(columns))), source).where(*conditions)
    count, value = connection.execute(query.with_for_update() if lock else query).one()
    if not count:
        return [[] for _ in columns]
    found = (
        (value.decode() if isinstance(value, bytes) else value).replace(_ROW, _FIELD).split(_FIELD)
    )
    if len(found) != count * len(columns):
        raise CutShortError(f"{count} rows of {len(columns)} columns, {columns[0]} first")
    width = len(columns)
    return [_read(column, found[i::width]) for i, column in enumerate(columns)]


def _of(statement: Select[Any], source: FromClause | None) -> Select[Any]:
    return statement if source is None else statement.select_from(source)


@lru_cache(maxsize=64)  # the columns are those of few statements
def _packed(columns: tuple[ColumnElement[Any], ...]) -> ColumnElement[str]:
    row = func.concat_ws(_FIELD, *map(_as_text, columns))
    return func.group_concat(row.op("SEPARATOR")(literal_column(f"'{_ROW}'")))


def _as_text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    value = func.hex(column) if isinstance(column.type, LargeBinary) else column
    return func.coalesce(value, "") if _is_nullable(column) else value


def _is_nullable(column: ColumnElement[Any]) -> bool:
    return not isinstance(column, Column) or bool(column.nullable)


def _read(column: ColumnElement[Any], values: list[str]) -> list[Any]:
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
