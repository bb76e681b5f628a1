"""The engine, the database's clock, and SQL that the two dialects spell differently."""

import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import BigInteger

from portcullis.store.driver import SCRIPTS, Cursor
from portcullis.store.servers import Servers, without_servers

_P = ParamSpec("_P")
_T = TypeVar("_T")

_UNDONE = {
    1205,  # lock wait timeout
    1213,  # deadlock; with Galera also another node's commit
}
_DENIED = {
    1044,  # to the database
    1045,  # the sign-in
    1142,  # to a table
    1143,  # to a column
    1227,  # a privilege
}
_FROM_CLIENT = range(2000, 3000)  # the driver's own errors: no connection, or it was lost
_CONNECT_S = 2
_POOL_S = 5.0
PATIENCE_S = 2.0
"""How long a transaction is run again, once it was undone."""


def engine_for(url: str, *, pool_size: int = 5, answer_s: float | None = 30.0) -> Engine:
    """Make an engine for `mysql+pymysql://…` or `sqlite:///FILE`; raises ConfigError.

    With several `host=HOST:PORT` in the query of a MySQL URL, the one that takes writes is used,
    also after another has been promoted. `ssl_ca` makes TLS a must; `ssl_cert` and `ssl_key` are
    the client's; a new connection takes them as they are then. answer_s: how long a statement may
    take before the connection counts as lost.
    """
    if url.startswith("sqlite"):
        engine = create_engine(
            url, connect_args={"timeout": 30.0}, poolclass=NullPool, hide_parameters=True
        )
        event.listen(engine, "connect", _sqlite_pragmas)
        event.listen(engine, "begin", _sqlite_begin)
        return engine
    parsed = make_url(url)
    engine = create_engine(
        without_servers(parsed),
        isolation_level="READ COMMITTED",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_S,
        pool_recycle=1800,
        hide_parameters=True,
        skip_autocommit_rollback=True,
        connect_args={
            "client_flag": SCRIPTS,
            "cursorclass": Cursor,
            "connect_timeout": _CONNECT_S,
            "read_timeout": answer_s,
            "write_timeout": answer_s,
        },
    )
    Servers(parsed).attach(engine)
    event.listen(engine, "connect", _mysql_session)
    return engine


def _sqlite_pragmas(connection: Any, _record: object) -> None:  # noqa: ANN401 (a DBAPI connection)
    connection.isolation_level = None  # this module says BEGIN
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_begin(connection: Connection) -> None:
    # A reader that later writes would fail at once when another has written in between: writers
    # take the write lock when they begin.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _mysql_session(connection: Any, _record: object) -> None:  # noqa: ANN401 (a DBAPI connection)
    # A client that vanished without a word (power, network) must not hold the feed's row, which
    # every writer needs, for the hours that the server would wait for it. Only MariaDB can bound
    # the pause inside a transaction; MySQL bounds any.
    with connection.cursor() as cursor:
        cursor.execute(
            "SET time_zone = '+00:00', innodb_lock_wait_timeout = 5, lock_wait_timeout = 5"
            ", group_concat_max_len = 1073741824"  # max_allowed_packet is the narrower bound
            # Many ids at once are rarely unlike others: to look each up for the plan costs a server
            # as much as to read its row.
            ", eq_range_index_dive_limit = 8"
            # Nor is a list of a thousand better off as a table that is joined.
            "/*M!100300 , in_predicate_conversion_threshold = 0 */"
            ", wait_timeout = 60 /*M!100300 , idle_transaction_timeout = 10 */"
        )


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes: commits at the end of the block, else rolls back."""
    with engine.execution_options(writes=True).begin() as connection:
        yield connection


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads: all its statements see the database as it was at once."""
    with engine.connect() as connection:
        if connection.dialect.name == "mysql":
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield connection


def see_uncommitted(connection: Connection) -> None:
    """Have the transaction that is about to begin see what others have not committed yet.

    A server walks past entries of an index that are gone, but not cleared away yet, without asking
    whether they were there for this transaction. Locks are the same as ever.
    """
    if connection.dialect.name == "mysql":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")


def is_transient(error: DBAPIError) -> bool:
    """Whether the transaction was undone, or its connection lost: it may succeed when run again.

    Whether it was committed is not known where the connection was lost.
    """
    if error.connection_invalidated:
        return True
    return _code(error) in _UNDONE or "database is locked" in str(error.orig)


def is_denied(error: DBAPIError) -> bool:
    """Whether the database has refused the user a right: no repetition mends that."""
    return _code(error) in _DENIED


def is_away(error: DBAPIError) -> bool:
    """Whether the database was not there, or its connection was lost."""
    return error.connection_invalidated or _code(error) in _FROM_CLIENT


def reason_of(error: Exception) -> str:
    """For logs and `/readyz`: what was denied, in the database's words; else the error's name.

    These words name a right, a user and a table; those of other errors may hold values.
    """
    if isinstance(error, DBAPIError) and is_denied(error):
        assert error.orig is not None  # noqa: S101 (it has a code)
        return f"the database denies a right: {error.orig.args[-1]}"
    return type(error).__name__


def _code(error: DBAPIError) -> object:
    return error.orig.args[0] if error.orig is not None and error.orig.args else None


def retried(transaction: Callable[_P, _T]) -> Callable[_P, _T]:
    """Have a function run again where its transaction was undone or its connection lost.

    For one that may be run again though its commit was only not answered. A database that cannot
    be reached is the caller's to wait for.
    """

    @wraps(transaction)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        give_up_at = float("inf")
        for attempt in itertools.count():
            try:
                return transaction(*args, **kwargs)
            except DBAPIError as error:
                if not is_transient(error) or time.monotonic() > give_up_at:
                    raise
                give_up_at = min(give_up_at, time.monotonic() + PATIENCE_S)
                back_off(attempt)
        raise AssertionError  # count() does not end

    return run


def back_off(attempt: int) -> None:
    """Wait for up to 10 ms, 20 ms, 40 ms … 0.6 s: two in deadlock part ways."""
    time.sleep(secrets.randbelow(10_000) / 1e6 * 2 ** min(attempt, 6))


class greatest(GenericFunction[int]):  # noqa: N801 (SQL functions are spelled like this)
    """The larger of two numbers."""

    type = BigInteger()
    inherit_cache = True


@compiles(greatest, "sqlite")
def _greatest_sqlite(element: greatest, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 (as SQLAlchemy passes them)
    return f"MAX({compiler.process(element.clauses, **options)})"


class utc_now(GenericFunction[Any]):  # noqa: N801 (SQL functions are spelled like this)
    """The database's time, as `as_time` reads it."""

    inherit_cache = True


@compiles(utc_now, "mysql")
def _utc_now_mysql(_element: utc_now, _compiler: SQLCompiler, **_options: Any) -> str:  # noqa: ANN401 (as SQLAlchemy passes them)
    return "UTC_TIMESTAMP(6)"


@compiles(utc_now, "sqlite")
def _utc_now_sqlite(_element: utc_now, _compiler: SQLCompiler, **_options: Any) -> str:  # noqa: ANN401 (as SQLAlchemy passes them)
    return "STRFTIME('%Y-%m-%d %H:%M:%f', 'now')"


class unix_s(GenericFunction[int]):  # noqa: N801 (SQL functions are spelled like this)
    """A time in whole Unix seconds."""

    type = BigInteger()
    inherit_cache = True


@compiles(unix_s, "mysql")
def _unix_s_mysql(element: unix_s, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 (as SQLAlchemy passes them)
    # UNIX_TIMESTAMP ends in 2038.
    return f"TIMESTAMPDIFF(SECOND, '1970-01-01', {compiler.process(element.clauses, **options)})"


@compiles(unix_s, "sqlite")
def _unix_s_sqlite(element: unix_s, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 (as SQLAlchemy passes them)
    return f"CAST(STRFTIME('%s', {compiler.process(element.clauses, **options)}) AS INTEGER)"


class read_only(GenericFunction[int]):  # noqa: N801 (SQL functions are spelled like this)
    """Whether the server takes no writes: a replica."""

    inherit_cache = True


@compiles(read_only, "mysql")
def _read_only_mysql(_element: read_only, _compiler: SQLCompiler, **_options: Any) -> str:  # noqa: ANN401 (as SQLAlchemy passes them)
    return "@@read_only"


@compiles(read_only, "sqlite")
def _read_only_sqlite(_element: read_only, _compiler: SQLCompiler, **_options: Any) -> str:  # noqa: ANN401 (as SQLAlchemy passes them)
    return "0"


def as_time(now: datetime | str) -> datetime:
    """What `utc_now` gave, aware, UTC."""
    value = datetime.fromisoformat(now) if isinstance(now, str) else now
    return value.replace(tzinfo=UTC)


_NOW = select(utc_now())


def database_now(connection: Connection) -> datetime:
    """The database's time, aware, UTC."""
    return as_time(connection.execute(_NOW).scalar_one())


def chunked(rows: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Cut rows into statements of `size`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
