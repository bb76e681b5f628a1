"""What the database servers say of themselves: read for `portcullis db check`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pymysql
from pymysql.cursors import DictCursor
from sqlalchemy import make_url

from portcullis.store.servers import Server, servers_of, tls_of

_CONNECT_S = 5
_ANSWER_S = 30.0


@dataclass(frozen=True)
class ServerState:
    """One server as it answered.

    Attributes:
        away: why it could not be asked; then nothing else is known.
        version: as it says, "10.11.6-MariaDB-log".
        variables, status: global variables and status by name, in lower case.
        cipher: TLS cipher of this connection; None in clear.
        tablespaces: tablespace → whether it is encrypted; None: this user may not see it.
        replica: SHOW REPLICA STATUS; None on a server that follows nobody.
        replica_unseen: this user may not see who follows whom.
        clock_ahead_s: its clock less ours.
    """

    server: str
    away: str | None = None
    version: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    status: Mapping[str, str] = field(default_factory=dict)
    cipher: str | None = None
    tablespaces: Mapping[str, bool] | None = None
    replica: Mapping[str, object] | None = None
    replica_unseen: bool = False
    clock_ahead_s: float = 0.0

    @property
    def takes_writes(self) -> bool:
        """Whether it is a primary."""
        return self.variables.get("read_only") == "OFF"


def inspect_servers(url: str) -> list[ServerState]:
    """Ask every server that a MySQL URL names; raises ConfigError for its TLS files."""
    return [_inspect(url, server) for server in servers_of(make_url(url))]


def _inspect(url: str, server: Server) -> ServerState:
    parsed = make_url(url)
    try:
        with pymysql.connect(
            host=server.host,
            port=server.port,
            user=parsed.username,
            password=parsed.password or "",
            database=parsed.database,
            ssl=tls_of(parsed),
            connect_timeout=_CONNECT_S,
            read_timeout=_ANSWER_S,
            write_timeout=_ANSWER_S,
            cursorclass=DictCursor,
        ) as connection:
            return _ask(connection, str(server), parsed.database or "")
    except pymysql.MySQLError as error:
        return ServerState(str(server), away=str(error.args[-1]))


def _ask(connection: "pymysql.Connection[DictCursor]", server: str, database: str) -> ServerState:
    asked_at = time.time()
    [now] = _rows(connection, "SELECT UNIX_TIMESTAMP(NOW(6)) AS now, VERSION() AS version")
    answered_at = time.time()
    session = _named(_rows(connection, "SHOW SESSION STATUS LIKE 'Ssl_cipher'"))
    replica, unseen = _replica(connection)
    return ServerState(
        server,
        version=now["version"],
        variables=_named(_rows(connection, "SHOW GLOBAL VARIABLES")),
        status=_named(_rows(connection, "SHOW GLOBAL STATUS LIKE 'Rpl\\_semi%'")),
        cipher=session.get("ssl_cipher") or None,
        tablespaces=_tablespaces(connection, database),
        replica=replica,
        replica_unseen=unseen,
        clock_ahead_s=float(now["now"]) - (asked_at + answered_at) / 2,
    )


def _rows(connection: "pymysql.Connection[DictCursor]", sql: str) -> Sequence[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def _named(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {row["Variable_name"].lower(): row["Value"] for row in rows}


def _replica(
    connection: "pymysql.Connection[DictCursor]",
) -> tuple[Mapping[str, object] | None, bool]:
    try:
        rows = _rows(connection, "SHOW REPLICA STATUS")
    except pymysql.MySQLError:
        return None, True
    return (rows[0] if rows else None), False


def _tablespaces(
    connection: "pymysql.Connection[DictCursor]", database: str
) -> Mapping[str, bool] | None:
    """The head-end's tables, and the system tablespace with what InnoDB keeps of any of them."""
    try:
        rows = _rows(
            connection,
            "SELECT NAME, ENCRYPTION_SCHEME AS scheme, MIN_KEY_VERSION AS oldest"
            " FROM information_schema.INNODB_TABLESPACES_ENCRYPTION",
        )
    except pymysql.MySQLError:
        return None
    return {
        row["NAME"] or "system": row["scheme"] == 1 and row["oldest"] > 0
        for row in rows
        if (row["NAME"] or "system") in ("system", "innodb_system")
        or row["NAME"].startswith(f"{database}/")
    }
