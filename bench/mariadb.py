"""A MariaDB server for one benchmark: durable, with memory enough for a million boxes."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql

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
        rows: list[tuple[object, ...]] = []
        where = {"unix_socket": str(self.socket), "user": "root", "database": "bench"}
        with pymysql.connect(**where, autocommit=True) as link, link.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = list(cursor.fetchall())
        return rows

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
