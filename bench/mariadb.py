"""A MariaDB server for one benchmark: durable, with memory enough for a million boxes."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql

from bench.measure import Measured
from bench.processes import folder, running, until
from portcullis.store.database import engine_for
from portcullis.store.migrate import migrate

_OPTIONS = [
    "--innodb-buffer-pool-size=2G",
    "--innodb-log-file-size=1G",
    "--innodb-flush-log-at-trx-commit=1",
    "--max-allowed-packet=64M",
    "--skip-log-bin",
    "--skip-name-resolve",
    "--bind-address=127.0.0.1",
]
_INSERT_ROWS = 1000
Ask = Callable[[str], list[tuple[object, ...]]]
_AS_ROOT = ["--user=mysql"] if os.getuid() == 0 else []


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A running server with one migrated database."""

    def __init__(self, home: Path, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.socket = home / "s"
        self.pid = process.pid
        self.port = port
        self.url = f"mysql+pymysql://root@127.0.0.1:{port}/bench?charset=utf8mb4"

    def run(self, *statements: str) -> list[tuple[object, ...]]:
        """Run statements as root; the rows of the last."""
        with self.asking() as ask:
            return [ask(statement) for statement in statements][-1]

    @contextmanager
    def asking(self) -> Iterator[Ask]:
        """Run one statement after the other as root on one connection; the rows of each."""
        where = {"unix_socket": str(self.socket), "user": "root", "database": "bench"}
        with pymysql.connect(**where, autocommit=True) as link, link.cursor() as cursor:

            def ask(statement: str) -> list[tuple[object, ...]]:
                cursor.execute(statement)
                return list(cursor.fetchall())

            yield ask

    def client(self, sql: str | Path, *options: str) -> None:
        """Have the `mariadb` client run SQL, or a file of it; what it answers is dropped."""
        command = ["mariadb", "--no-defaults", f"--socket={self.socket}", "-uroot", "-q", "bench"]
        if isinstance(sql, Path):
            with sql.open("rb") as statements:
                subprocess.run(
                    [*command, *options], stdin=statements, stdout=subprocess.DEVNULL, check=True
                )
        else:
            subprocess.run([*command, *options, "-e", sql], stdout=subprocess.DEVNULL, check=True)


def prebuilt_insert(database: Server, table: str, path: Path) -> Measured:
    """Write the rows of a table as INSERTs of 1000 rows; seconds that the client takes for them.

    They go into an empty table of the same form.
    """
    columns = database.run(
        "SELECT column_name, data_type FROM information_schema.columns"
        f" WHERE table_schema = DATABASE() AND table_name = '{table}' ORDER BY ordinal_position"
    )
    values = ",".join(
        f"IFNULL(CONCAT('x', QUOTE(HEX(`{name}`))), 'NULL')"
        if "binary" in str(kind) or "blob" in str(kind)
        else f"QUOTE(`{name}`)"
        for name, kind in columns
    )
    rows = database.run(
        f"CREATE TABLE {table}_copy LIKE `{table}`",
        f"SELECT CONCAT('(', CONCAT_WS(',', {values}), ')') FROM `{table}`",
    )
    with path.open("w", encoding="ascii") as file:
        for start in range(0, len(rows), _INSERT_ROWS):
            some = ",".join(_text(row[0]) for row in rows[start : start + _INSERT_ROWS])
            file.write(f"INSERT INTO {table}_copy VALUES {some};\n")

    def measured() -> float:
        database.run(f"TRUNCATE {table}_copy")
        begun = time.perf_counter()
        database.client(path)
        return time.perf_counter() - begun

    return measured


def _text(value: object) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


@contextmanager
def server() -> Iterator[Server]:
    """A server with an empty, migrated database `bench`; gone afterwards."""
    with folder() as home:
        if _AS_ROOT:
            shutil.chown(home, "mysql", "mysql")
        data, port = home / "data", free_port()
        install = [f"--datadir={data}", "--auth-root-authentication-method=normal", *_AS_ROOT]
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", "--skip-test-db", *install],
            check=True,
            capture_output=True,
        )
        where = [
            f"--tmpdir={home}",
            f"--datadir={data}",
            f"--socket={home}/s",
            f"--port={port}",
            *_AS_ROOT,
        ]
        log = home / "log"
        with running(["mariadbd", "--no-defaults", *where, *_OPTIONS], log) as process:
            until((home / "s").exists, process, log)
            one = Server(home, process, port)
            create = "CREATE DATABASE bench CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            with pymysql.connect(unix_socket=str(one.socket), user="root") as link:
                link.cursor().execute(create)
            engine = engine_for(one.url)
            migrate(engine)
            engine.dispose()
            yield one
