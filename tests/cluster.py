"""Three real MariaDB servers from the files in deploy/mariadb, set up as an operator would."""

import hashlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import pymysql
import pytest
from pymysql.cursors import DictCursor

from portcullis.store.database import engine_for
from portcullis.store.migrate import migrate
from portcullis.store.schema import metadata
from tests.ports import free_ports

DEPLOY = Path(__file__).parent.parent / "deploy" / "mariadb"
HOST = "127.0.0.1"
# Before what makes certificates: a client whose clock is an hour behind is to take them, too.
YESTERDAY = ("faketime", "-f", "-1d")
_AS_ROOT = os.getuid() == 0
_START_S = 60.0
# Below an operator's sizes, and nothing else: the rest is what deploy/mariadb says.
_NODE = """\
!include {deploy}/portcullis.cnf

[mariadbd]
server_id = {number}
report_host = 127.0.0.1
report_port = {port}
port = {port}
bind_address = 127.0.0.1
datadir = {home}/data
{user}
socket = {home}/s
ssl_ca = {shared}/ca.pem
ssl_cert = {shared}/127.0.0.1.pem
ssl_key = {shared}/127.0.0.1.key
loose_file_key_management_filename = {shared}/keys.enc
loose_file_key_management_filekey = FILE:{shared}/keys.secret
tmpdir = {home}
innodb_buffer_pool_size = 64M
innodb_log_file_size = 16M
{more}

[client]
socket = {home}/s
user = root

[mariadb-backup]
socket = {home}/s
user = root
"""


class Node:
    """One server: its files, its process while it runs."""

    def __init__(self, name: str, number: int, port: int, home: Path, more: str = "") -> None:
        self.name, self.port, self.home = name, port, home
        self.environ = _service_environment()
        self.address = f"{HOST}:{port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.data = home / "data"
        home.mkdir()
        (home / "my.cnf").write_text(
            _NODE.format(
                deploy=DEPLOY,
                number=number,
                port=port,
                home=home,
                shared=home.parent,
                more=more,
                user="user = mysql" if _AS_ROOT else "",
            )
        )
        _give_to_server(home)

    def command(self, program: str, *arguments: str) -> list[str]:
        """A program of MariaDB's with this server's configuration."""
        return [program, f"--defaults-file={self.home}/my.cnf", *arguments]

    def start(self, *arguments: str) -> None:
        """Start the server and wait until it says that it takes connections (sd_notify)."""
        notify = self.home / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.bind(str(notify))
            heard.settimeout(0.2)
            _give_to_server(notify)
            with (self.home / "log").open("ab") as log:
                self.process = subprocess.Popen(
                    self.command("mariadbd", *arguments),
                    stdout=log,
                    stderr=log,
                    env=os.environ | self.environ | {"NOTIFY_SOCKET": str(notify)},
                )
            end = time.monotonic() + _START_S
            said = b""
            while b"READY=1" not in said:
                with suppress(TimeoutError):
                    said = heard.recv(4096)
                if self.process.poll() is not None or time.monotonic() > end:
                    raise AssertionError((self.home / "log").read_text()[-4000:])
        notify.unlink()

    def stop(self) -> None:
        """End the server in order."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def kill(self) -> None:
        """End the server at once, as `kill -9`."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def execute(self, statement: str) -> Sequence[dict[str, Any]]:
        """Run one statement as root, through the socket; returns its rows."""
        with (
            pymysql.connect(
                unix_socket=f"{self.home}/s", user="root", autocommit=True, cursorclass=DictCursor
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            return list(cursor.fetchall())

    def client(self, sql: str, *arguments: str) -> None:
        """Feed SQL to the command-line client, as root, through the socket."""
        _run(self.command("mariadb", *arguments), sql)


class Cluster:
    """A primary and two replicas: encrypted, over TLS only, no commit lost.

    Names are "db1" (the first primary), "db2", "db3". Users are those of make-users.

    Args:
        more_configuration: for every server, beside what deploy/mariadb says.
        is_bare: three servers as they come from the packages: no data, no keys, no users.

    Attributes:
        shared: CA, certificates, key file; what `deploy/mariadb/cluster` reads.
    """

    def __init__(self, more_configuration: str = "", *, is_bare: bool = False) -> None:
        template = None if is_bare else _template()
        self.shared = Path(tempfile.mkdtemp(prefix="portcullis-cluster-", dir="/var/tmp"))
        self.shared.chmod(0o755)
        if template is not None:
            for file in (template / "shared").iterdir():
                _copy(file, self.shared)
        self.nodes: dict[str, Node] = {}
        for number, port in enumerate(free_ports(3), start=1):
            name = f"db{number}"
            node = Node(name, number, port, self.shared / name, more_configuration)
            self.nodes[name] = node
            if template is not None:
                _copy(template / "data", node.home)
        if template is not None:
            nodes = "".join(f"{node.address}\n" for node in self.nodes.values())
            (self.shared / "nodes").write_text(nodes)
        self.primary = "db1"
        self._replaced: set[str] = set()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.push(self)
            for node in self.nodes.values():
                node.start()
            self.nodes["db1"].execute("SET GLOBAL read_only = 0")
            self.rejoin("db2")
            self.rejoin("db3")
            self.promote("db1")
            stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for node in self.nodes.values():
            node.kill()
        shutil.rmtree(self.shared)

    @property
    def hosts(self) -> list[str]:
        """Every server as "host:port"."""
        return [node.address for node in self.nodes.values()]

    @property
    def ssl_ca(self) -> Path:
        """The certificate of the CA that the servers' certificates are from."""
        return self.shared / "ca.pem"

    def give_to_servers(self) -> None:
        """Have the servers' user own what it reads: keys and certificates."""
        for file in self.shared.iterdir():
            if file.is_file():
                _give_to_server(file)

    def kill(self, name: str) -> None:
        """`kill -9` a server."""
        self.nodes[name].kill()

    def start(self, name: str) -> None:
        """Start a server; it takes no write and follows nobody until `promote` or `rejoin`."""
        self.nodes[name].start()

    def start_replaced(self, name: str) -> None:
        """Start a dead primary whose place another has taken, as failover.md says."""
        self.nodes[name].start("--init-rpl-role=SLAVE")
        self._replaced.discard(name)

    def heal(self) -> None:
        """Have every server run, and follow the primary."""
        if self.nodes[self.primary].process is None:
            for name, node in self.nodes.items():
                if node.process is None:
                    self.start(name)
            self.promote(self.primary)
        for name, node in self.nodes.items():
            if node.process is None:
                if name in self._replaced:
                    self.start_replaced(name)
                else:
                    self.start(name)
                self.rejoin(name)

    def renew(self) -> None:
        """Have every server run, with empty tables."""
        self.heal()
        statements = [f"DELETE FROM `{name}`" for name in metadata.tables if name != "feed"]
        self.nodes[self.primary].client(";".join(statements), "portcullis")
        self.catch_up()

    def catch_up(self) -> None:
        """Wait until every replica has applied what the primary has committed."""
        [row] = self.execute("SELECT @@gtid_binlog_pos AS p")
        for name in self.nodes.keys() - {self.primary}:
            [done] = self.execute(f"SELECT MASTER_GTID_WAIT('{row['p']}', 60) AS late", name)
            assert done["late"] == 0, name

    def rebuild(self, name: str) -> None:
        """Give a server that cannot rejoin the primary's data, as failover.md says."""
        node, primary = self.nodes[name], self.nodes[self.primary]
        node.kill()
        shutil.rmtree(node.data)
        backup = f"--target-dir={node.data}"
        _run(primary.command("mariadb-backup", "--backup", backup))
        own = f"--defaults-file={node.data}/backup-my.cnf"
        _run(["mariadb-backup", own, "--prepare", backup])
        _give_to_server(node.data, recursive=True)
        node.start()
        position = (node.data / "xtrabackup_binlog_info").read_text().split()[2]
        node.execute(f"SET GLOBAL gtid_slave_pos = '{position}'")
        self.rejoin(name)

    def promote(self, name: str, *arguments: str) -> None:
        """Make a server the primary; raises AssertionError with what the script says."""
        self.manage("promote", self.nodes[name].address, *arguments)
        if self.nodes[self.primary].process is None:
            self._replaced.add(self.primary)
        self.primary = name

    def rejoin(self, name: str) -> None:
        """Make a server that runs follow the primary; raises AssertionError."""
        self.manage("rejoin", self.nodes[name].address)

    def manage(self, *arguments: str) -> str:
        """Run `deploy/mariadb/cluster`; returns its output; raises AssertionError."""
        return _run([str(DEPLOY / "cluster"), str(self.shared), *arguments])

    def await_replicas(self, count: int) -> None:
        """Wait until so many replicas acknowledge; the test's time-out bounds it."""
        status = "SHOW STATUS LIKE 'Rpl_semi_sync_master_clients'"
        while int(self.execute(status)[0]["Value"]) != count:
            time.sleep(0.02)  # the server has no event for it

    def execute(self, statement: str, name: str | None = None) -> Sequence[dict[str, Any]]:
        """Run one statement as root, on the primary where none is named."""
        return self.nodes[name or self.primary].execute(statement)

    def password(self, user: str) -> str:
        """The password of one of make-users' users."""
        return self.password_file(user).read_text()

    def password_file(self, user: str) -> Path:
        """The file with a user's password."""
        return self.shared / f"{user}.password"

    def url(self, user: str, name: str | None = None, database: str = "portcullis") -> str:
        """A SQLAlchemy URL, password and all, of one server: the primary where none is named."""
        node = self.nodes[name or self.primary]
        return (
            f"mysql+pymysql://{user}:{quote(self.password(user))}@{node.address}/{database}"
            f"?charset=utf8mb4&ssl_ca={self.ssl_ca}"
        )

    def multi_url(self, user: str) -> str:
        """A URL that names every server, as `[database] hosts` does."""
        hosts = "".join(f"&host={host}" for host in self.hosts)
        return f"{self.url(user)}{hosts}"

    def grant(self, database: str = "portcullis") -> None:
        """Run grants.sql on a database that is migrated."""
        self.nodes[self.primary].client((DEPLOY / "grants.sql").read_text(), database)


def _template() -> Path:
    """Certificates, key file and an encrypted data directory with the users in it.

    Made once for this machine and for what it is made by.
    """
    files = ("portcullis.cnf", "make-certificates", "make-key-file", "make-users")
    made_by = [*((DEPLOY / name).read_text() for name in files), _NODE, *YESTERDAY]
    state = hashlib.sha256("".join(made_by).encode()).hexdigest()[:16]
    template = Path("/var/tmp") / f"portcullis-cluster-template-{os.getuid()}-{state}"
    if template.exists():
        return template
    fresh = Path(tempfile.mkdtemp(prefix="portcullis-template-", dir="/var/tmp"))
    fresh.chmod(0o755)
    _run([*YESTERDAY, str(DEPLOY / "make-certificates"), str(fresh), HOST])
    _run([str(DEPLOY / "make-key-file"), str(fresh)])
    for file in fresh.iterdir():
        _give_to_server(file)
    [port] = free_ports(1)
    node = Node("template", 1, port, fresh / "template")
    as_root = "--auth-root-authentication-method=normal"
    _run(node.command("mariadb-install-db", as_root, "--skip-test-db"))
    node.start()
    node.client(_run([str(DEPLOY / "make-users"), str(fresh)]))
    node.client("RESET MASTER")  # all three begin with the same
    node.stop()
    shared = fresh / "shared"
    shared.mkdir()
    for file in [path for path in fresh.iterdir() if path.is_file()]:
        file.rename(shared / file.name)
    node.data.rename(fresh / "data")
    try:
        fresh.rename(template)
    except OSError:  # another worker was quicker
        shutil.rmtree(fresh)
    return template


def _service_environment() -> dict[str, str]:
    """What the service manager gives a server: `Environment=` of portcullis.service.conf."""
    text = (DEPLOY / "portcullis.service.conf").read_text()
    return dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE))


def _copy(source: Path, directory: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(directory)], check=True)


def _give_to_server(path: Path, *, recursive: bool = False) -> None:
    if _AS_ROOT:
        for one in [path, *(path.rglob("*") if recursive else ())]:
            shutil.chown(one, "mysql", "mysql")


def _run(command: Sequence[str], stdin: str | None = None) -> str:
    """Run a command to its end; raises AssertionError with what it said."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


@pytest.fixture(scope="session")
def cluster_servers() -> Iterator[Cluster]:
    """The servers with their tables, in whatever state tests left them: take `cluster`."""
    with Cluster() as cluster:
        engine = engine_for(cluster.url("portcullis_migrate"))
        migrate(engine)
        engine.dispose()
        cluster.grant()
        yield cluster


@pytest.fixture
def cluster(cluster_servers: Cluster) -> Cluster:
    """A whole cluster with empty tables, as after `portcullis migrate` and grants.sql."""
    cluster_servers.renew()
    return cluster_servers
