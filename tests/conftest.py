"""A private MariaDB for the session, and a fresh, migrated database for each test."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pymysql
import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import make_url

from portcullis.store.database import engine_for
from portcullis.store.migrate import migrate
from tests.ports import free_ports

# A test says what is right, not how fast: a loaded machine must not fail it.
settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("untimed")

pytest_plugins = ["tests.cluster"]

_TEMPLATE = Path("/var/tmp") / f"portcullis-mariadb-template-{os.getuid()}"
_AS_ROOT = ["--user=mysql"] if os.getuid() == 0 else []
_SMALL = ["--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M"]


def free_port() -> int:
    """A TCP port that nothing listens on."""
    return free_ports(1)[0]


def _template() -> Path:
    """An empty data directory, made once for this machine and copied for each server."""
    if not _TEMPLATE.exists():
        fresh = Path(tempfile.mkdtemp(prefix="portcullis-mariadb-", dir="/var/tmp"))
        if _AS_ROOT:
            shutil.chown(fresh, "mysql", "mysql")
        subprocess.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={fresh}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                *_SMALL[:1],
                *_AS_ROOT,
            ],
            check=True,
            capture_output=True,
        )
        try:
            fresh.rename(_TEMPLATE)
        except OSError:  # another worker was quicker
            shutil.rmtree(fresh)
    return _TEMPLATE


class MariaDb:
    """One running server with its own data directory, socket and port, and `options`."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.port = free_port()
        data = home / "data"
        subprocess.run(["cp", "-a", str(_template()), str(data)], check=True)
        self._command = [
            "mariadbd",
            "--no-defaults",
            f"--datadir={data}",
            f"--tmpdir={home}",  # a server that starts empties it: each has its own
            f"--socket={home}/s",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--skip-log-bin",
            *_SMALL,
            *_AS_ROOT,
            *options,
        ]
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + 30
        while True:
            try:
                self.execute("SELECT 1")
            except pymysql.err.OperationalError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise AssertionError((self.home / "log").read_text()) from None
                time.sleep(0.02)  # a starting server has no event to wait on
            else:
                return

    def execute(self, statement: str) -> None:
        """Run one statement as root."""
        with (
            pymysql.connect(host="127.0.0.1", port=self.port, user="root") as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)

    def new_database(self) -> str:
        """Make an empty database; returns its SQLAlchemy URL."""
        name = f"t{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{name}?charset=utf8mb4"

    def migrated_database(self) -> str:
        """Make a database with this release's schema; returns its SQLAlchemy URL.

        The first one of a server is migrated, the others are made like it: in a third of the time.
        """
        url = self.new_database()
        database = [f"--socket={self.home}/s", "-uroot", make_url(url).database or ""]
        schema = self.home / "schema.sql"
        if schema.exists():
            with schema.open("rb") as statements:
                subprocess.run(
                    ["mariadb", "--no-defaults", *database], stdin=statements, check=True
                )
        else:
            _migrate(url)
            with schema.open("wb") as statements:
                dump = ["mariadb-dump", "--no-defaults", "--compact", *database]
                subprocess.run(dump, stdout=statements, check=True)
        return url

    def kill(self) -> None:
        """End the server at once, as a power cut would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running_mariadb(*options: str) -> Iterator[MariaDb]:
    """A MariaDB server, as it comes but for `options`, until the end of the block."""
    home = Path(tempfile.mkdtemp(prefix="portcullis-db-", dir="/var/tmp"))
    home.chmod(0o755)
    if _AS_ROOT:
        shutil.chown(home, "mysql", "mysql")
    server = MariaDb(home, *options)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """A private MariaDB server."""
    with running_mariadb() as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb: MariaDb) -> str:
    """A fresh, migrated MariaDB database."""
    return mariadb.migrated_database()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with this release's schema, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "portcullis.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "mariadb"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, migrated database, of both kinds in turn."""
    if request.param == "mariadb":
        return str(request.getfixturevalue("mariadb_url"))
    shutil.copy(request.getfixturevalue("migrated_file"), tmp_path)
    return f"sqlite:///{tmp_path}/portcullis.db"


def _migrate(url: str) -> None:
    engine = engine_for(url)
    migrate(engine)
    engine.dispose()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the demo: it takes longest, and mostly waits."""
    items.sort(key=lambda item: "test_demo.py" not in item.nodeid)
