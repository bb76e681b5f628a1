"""Which of several database servers to connect to: the one that takes writes.

A promotion needs no restart: a connection is looked at each time it leaves the pool, and one
whose server has become a replica, or has gone, is dropped with all of its pool.
"""

import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.engine.url import URL
from sqlalchemy.exc import InvalidatePoolError

from portcullis.runtime.config import ConfigError
from portcullis.runtime.logging import get_logger
from portcullis.store.driver import pymysql

log = get_logger("portcullis.store")

CANNOT_CONNECT = 2003
_GONE = {
    1047,  # Galera: the node is not in the primary component
    1053,  # the server is being shut down
    1290,  # read-only: a primary that was demoted
    1836,  # the same, as MySQL says it
    1927,  # the connection was killed
}
_SSL_KEYS = ("ssl_ca", "ssl_cert", "ssl_key")
_SEARCH_AGAIN_S = 0.5
_GREET_S = 2.0  # what a server may take to greet, or to say what it is
LOST_S = 5
"""A machine that the network no longer reaches is lost after so long, whatever is waited for."""
_PROBE_AFTER_S = 2


def _unchecked() -> ssl.SSLContext:
    """TLS for where the server offers it and no CA says whose certificates are good."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


_UNCHECKED = _unchecked()


class Server(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def servers_of(url: URL) -> list[Server]:
    """The servers that a URL names: `host=HOST:PORT` in its query, else its own host."""
    named = url.query.get("host", ())
    hosts = [named] if isinstance(named, str) else list(named)
    if not hosts:
        return [Server(url.host or "127.0.0.1", url.port or 3306)]
    split = [host.rpartition(":") for host in hosts]
    return [Server(host.strip("[]"), int(port)) for host, _, port in split]


def without_servers(url: URL) -> URL:
    """The URL without what this module reads of it."""
    return url.difference_update_query(["host", *_SSL_KEYS])


def tls_of(url: URL) -> ssl.SSLContext | None:
    """TLS as the URL asks for it: `ssl_ca`, `ssl_cert`, `ssl_key`; None without a CA.

    The server's certificate must be from the CA and for the host's name. Raises ConfigError.
    """
    ca, certificate, key = (url.query.get(name) for name in _SSL_KEYS)
    if not isinstance(ca, str):
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if isinstance(certificate, str):
            context.load_cert_chain(certificate, key if isinstance(key, str) else None)
    except OSError as error:
        raise ConfigError(f"database.ssl_ca, ssl_cert or ssl_key: {error}") from error
    return context


class Servers:
    """Connects an engine's pool to the server that takes writes.

    Certificates are read anew for each connection; files that are wrong are left with a warning,
    and what was read before goes on. Raises ConfigError where they are wrong at first.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._servers = servers_of(url)
        self._tls = tls_of(url)
        self._lock = threading.Lock()
        self._found_none: tuple[float, str] | None = None

    def attach(self, engine: Engine) -> None:
        """Make an engine's connections."""
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "checkout", _look)
        event.listen(engine, "handle_error", _drop_what_is_gone)

    def _connect(
        self, dialect: Dialect, _record: object, arguments: Sequence[Any], named: dict[str, Any]
    ) -> Any:  # noqa: ANN401 (a DBAPI connection)
        """Connect to the server that takes writes; raises OperationalError if none does.

        One thread looks at a time, and what it has found out holds for a moment: while there is
        no primary everybody is told at once.
        """
        with self._lock:
            if self._found_none is not None:
                found_at, why = self._found_none
                if time.monotonic() - found_at < _SEARCH_AGAIN_S:
                    raise pymysql.OperationalError(CANNOT_CONNECT, why)
            tls = self._tls_anew()
            refused = []
            for server in list(self._servers):
                try:
                    connection = dialect.connect(
                        *arguments,
                        **named
                        | {"host": server.host, "port": server.port, "ssl": tls}
                        | {"ssl_disabled": tls is None, "defer_connect": True}
                        | {"read_timeout": _GREET_S},
                    )
                    if tls is None:
                        # As PyMySQL does by itself, which reads all CAs of the machine for it.
                        connection.ssl, connection.ctx = True, _UNCHECKED
                    connection.connect()
                    _notice_loss(connection._sock)  # noqa: SLF001 (it has no other name)
                    if takes_writes(connection):
                        connection._read_timeout = named.get("read_timeout")  # noqa: SLF001 (see `_look`)
                        self._found_none = None
                        return connection
                    connection.close()
                    refused.append(f"{server} is read-only")
                except pymysql.MySQLError as error:
                    if len(self._servers) == 1:
                        raise
                    refused.append(f"{server}: {error.args[-1]}")
                # Next time the others first: a dead machine costs the time-out.
                self._servers.remove(server)
                self._servers.append(server)
            why = f"no database server takes writes: {'; '.join(refused)}"
            self._found_none = (time.monotonic(), why)
            raise pymysql.OperationalError(CANNOT_CONNECT, why)

    def _tls_anew(self) -> ssl.SSLContext | None:
        try:
            self._tls = tls_of(self._url)
        except ConfigError as error:
            log.warning("certificates not taken", reason=str(error))
        return self._tls


def _notice_loss(link: socket.socket) -> None:
    """Have the kernel ask whether the other end is there: a statement may take longer than that."""
    if link.family == socket.AF_UNIX:
        return
    tcp = socket.IPPROTO_TCP
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.setsockopt(tcp, socket.TCP_KEEPIDLE, _PROBE_AFTER_S)
    link.setsockopt(tcp, socket.TCP_KEEPINTVL, 1)
    link.setsockopt(tcp, socket.TCP_KEEPCNT, LOST_S - _PROBE_AFTER_S)
    link.setsockopt(tcp, socket.TCP_USER_TIMEOUT, LOST_S * 1000)


def takes_writes(connection: Any) -> bool:  # noqa: ANN401 (a DBAPI connection)
    """Whether the server at the other end is one to write to; raises MySQLError."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@read_only")
        return not cursor.fetchone()[0]


def hurry(connection: Any) -> object:  # noqa: ANN401 (a DBAPI connection)
    """Wait for this connection's answers no longer than for a greeting; returns the old bound.

    PyMySQL reads this attribute before each answer, and has no other way to bound a single one.
    """
    answer_s: object = connection._read_timeout  # noqa: SLF001 (see above)
    connection._read_timeout = _GREET_S  # noqa: SLF001 (see above)
    return answer_s


def _look(connection: Any, _record: object, _proxy: object) -> None:  # noqa: ANN401 (a DBAPI connection)
    # A server that hangs is not waited for as long as a statement may take.
    answer_s = hurry(connection)
    try:
        is_good = takes_writes(connection)
    except pymysql.MySQLError as error:
        raise InvalidatePoolError(str(error.args[-1])) from error
    finally:
        connection._read_timeout = answer_s  # noqa: SLF001 (see `hurry`)
    if not is_good:
        raise InvalidatePoolError("the server has become read-only")


def _drop_what_is_gone(context: ExceptionContext) -> None:
    """Take the connection, and the pool's others, for lost where the server says as much."""
    error = context.original_exception
    if isinstance(error, pymysql.MySQLError) and error.args and error.args[0] in _GONE:
        context.is_disconnect = True
