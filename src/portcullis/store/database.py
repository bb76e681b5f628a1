"""The engine, the database's clock, and SQL that the two dialects spell differently."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import BigInteger

_T = TypeVar("_T")

_RETRIED_ERRORS = {
    1205,  # lock wait timeout
    1213,  # deadlock
    1290,  # read-only: a primary that was demoted
    2006,  # server has gone away
    2013,  # lost connection
}


def engine_for(url: str, *, pool_size: int = 5) -> Engine:
    """Make an engine for `mysql+pymysql://…` or `sqlite:///FILE`."""
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": 30.0}, poolclass=NullPool)
        event.listen(engine, "connect", _sqlite_pragmas)
        event.listen(engine, "begin", _sqlite_begin)
        return engine
    engine = create_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={"connect_timeout": 5, "read_timeout": 60, "write_timeout": 60},
    )
    event.listen(engine, "connect", _mysql_session)
    return engine


def _sqlite_pragmas(connection: Any, _record: object) -> None:  # noqa: ANN401 (a DBAPI connection)
    connection.isolation_level = None  # this module says BEGIN
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_begin(connection: Connection) -> None:
    # A reader that later writes would fail at once when another has written in between, and
    # SKIP LOCKED means nothing here: writers take the write lock when they begin.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _mysql_session(connection: Any, _record: object) -> None:  # noqa: ANN401 (a DBAPI connection)
    with connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00', innodb_lock_wait_timeout = 10")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes: commits at the end of the block, else rolls back."""
    with engine.execution_options(writes=True).begin() as connection:
        yield connection


def is_transient(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed when it is run again."""
    if error.connection_invalidated:
        return True
    code = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return code in _RETRIED_ERRORS or "database is locked" in str(error.orig)


class greatest(GenericFunction[int]):  # noqa: N801 (SQL functions are spelled like this)
    """The larger of two numbers."""

    type = BigInteger()
    inherit_cache = True


@compiles(greatest, "sqlite")
def _greatest_sqlite(element: greatest, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 (as SQLAlchemy passes them)
    return f"MAX({compiler.process(element.clauses, **options)})"


def database_now(connection: Connection) -> datetime:
    """The database's time, aware, UTC."""
    if connection.dialect.name == "mysql":
        value = connection.execute(text("SELECT UTC_TIMESTAMP(6)")).scalar_one()
    else:
        value = datetime.fromisoformat(
            connection.execute(text("SELECT STRFTIME('%Y-%m-%d %H:%M:%f', 'now')")).scalar_one()
        )
    assert isinstance(value, datetime)  # noqa: S101 (tells mypy what both statements return)
    return value.replace(tzinfo=UTC)


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, object]],
    update: Sequence[str],
) -> None:
    """INSERT many rows in one statement; where the key is there, take the `update` columns."""
    if not rows:
        return
    if connection.dialect.name == "mysql":
        insert = mysql.insert(table).values(list(rows))
        connection.execute(
            insert.on_duplicate_key_update({name: insert.inserted[name] for name in update})
        )
    else:
        insert_lite = sqlite.insert(table).values(list(rows))
        connection.execute(
            insert_lite.on_conflict_do_update(
                index_elements=list(table.primary_key.columns),
                set_={name: insert_lite.excluded[name] for name in update},
            )
        )


def chunked(rows: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Cut rows into statements of `size`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
