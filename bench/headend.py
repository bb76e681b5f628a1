"""A head-end's database with boxes that can be sealed for, and the services that do it."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.mariadb import Server, free_port
from bench.population import PRODUCTS, orderable
from bench.processes import PORTCULLIS, folder, service
from portcullis.keys import Custody, KeyRing, MasterKey, Purpose


@dataclass
class Encryptor:
    """One that runs: `socket` is where it listens, `monitor` where its metrics are."""

    pid: int
    socket: Path
    monitor: str


@dataclass
class HeadEnd:
    """Where it is.

    Attributes:
        home: folder of configuration, keys and logs.
        config: the configuration file.
        encryptor: pid of the encryptor.
        socket: where the encryptor listens.
    """

    home: Path
    config: Path
    encryptor: int
    socket: Path
    server: Server
    _emmgs: list[int] = field(default_factory=list)

    @contextmanager
    def emmgs(self, count: int, encryptors: Sequence[Encryptor] = ()) -> Iterator[list[int]]:
        """So many EMMGs; their pids. `encryptors`: one for each EMMG, in turn; else the first."""
        with ExitStack() as stack:
            pids = []
            for number in range(count):
                own = self.home / f"emmg{number}.toml"
                monitor = f"127.0.0.1:{free_port()}"
                text = self.config.read_text(encoding="utf-8").replace("MONITOR", monitor)
                if encryptors:
                    mine = encryptors[number % len(encryptors)].socket
                    text = text.replace(
                        f'encryptor = "unix:{self.socket}"', f'encryptor = "unix:{mine}"'
                    )
                own.write_text(text, encoding="utf-8")
                process = stack.enter_context(service("emmg", own, monitor, ready="livez"))
                pids.append(process.pid)
            self._emmgs = pids
            yield pids

    @contextmanager
    def emmgs_at_rest(self) -> Iterator[None]:
        """Have the EMMGs do nothing meanwhile."""
        for pid in self._emmgs:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in self._emmgs:
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def encryptors(self, count: int) -> Iterator[list[Encryptor]]:
        """So many encryptors beside the first, with the same master."""
        with ExitStack() as stack:
            found = []
            for number in range(count):
                own, at = self.home / f"encryptor{number}.toml", self.home / f"e{number}.sock"
                monitor = f"127.0.0.1:{free_port()}"
                own.write_text(_encryptor(at, monitor, self.home), encoding="utf-8")
                process = stack.enter_context(service("encryptor", own, monitor))
                found.append(Encryptor(process.pid, at, monitor))
            yield found


@contextmanager
def head_end(server: Server, boxes: int) -> Iterator[HeadEnd]:
    """An encryptor, and boxes 1 to `boxes` with their keys, each with three of ten products."""
    with folder() as home:
        monitor = f"127.0.0.1:{free_port()}"
        config = home / "portcullis.toml"
        config.write_text(
            f'[database]\nurl = "{server.url}"\n{_encryptor(home / "e.sock", monitor, home)}'
            f'[emmg]\nencryptor = "unix:{home}/e.sock"\nmonitor = "MONITOR"\n',
            encoding="utf-8",
        )
        init_keys(config)
        with service("encryptor", config, monitor) as encryptor:
            _fill(server, home, boxes)
            yield HeadEnd(home, config, encryptor.pid, home / "e.sock", server)


def _encryptor(at: Path, monitor: str, home: Path) -> str:
    return (
        f'[encryptor]\nlisten = "unix:{at}"\nmonitor = "{monitor}"\n'
        f'master_key_file = "{home}/master.json"\n'
    )


def init_keys(config: Path) -> str:
    """Make master and import key; the recipient that vendors encrypt to."""
    init = [*PORTCULLIS, "keys", "init", "--json", "--config", str(config)]
    said = subprocess.run(init, check=True, capture_output=True)
    return str(json.loads(said.stdout)["import_recipient"])


def _fill(server: Server, home: Path, boxes: int) -> None:
    (master,) = json.loads((home / "master.json").read_text(encoding="utf-8"))
    key = bytes.fromhex(master["key"])
    custody = Custody(KeyRing([MasterKey(master["master_id"], key)]))
    sql = home / "keys.sql"
    head = (
        "INSERT INTO `keys` (purpose, owner, first_epoch, last_epoch, master_id, sealed_key,"
        " created_at, live_epoch, seal_epoch) VALUES\n"
    )
    with sql.open("w", encoding="ascii") as file:
        rows = []
        for product in range(1, PRODUCTS + 1):
            _, blob = custody.seal(os.urandom(16), Purpose.PRODUCT, product, 1, 64)
            label = f"'product', {product}, 1, 64, '{master['master_id']}'"
            rows.append(f"({label}, x'{blob.hex()}', NOW(6), 32, 32)")
        for box in range(1, boxes + 1):
            _, blob = custody.seal(os.urandom(32), Purpose.DEVICE, box, 0, 65535)
            label = f"'device', {box}, 0, 65535, '{master['master_id']}'"
            rows.append(f"({label}, x'{blob.hex()}', NOW(6), NULL, NULL)")
        for start in range(0, len(rows), 1000):
            file.write(head + ",\n".join(rows[start : start + 1000]) + ";\n")
    server.client(sql)
    sql.unlink()
    orderable(server, boxes)
