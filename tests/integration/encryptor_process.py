"""An encryptor as a process of its own, for tests that talk to it or kill it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
from sqlalchemy import Engine

from portcullis.keys import init_masters
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.store.database import writing
from portcullis.store.keys import key_row
from portcullis.store.schema import keys
from tests.conftest import free_port


def seal_device_keys(
    client: EncryptorClient, device_keys: Iterable[tuple[int, bytes]]
) -> list[pb.SealedKey]:
    """Sealed keys of devices, by way of a plain key file."""
    file = "".join(f"{device_id},{key.hex()}\n" for device_id, key in device_keys)
    batches = client.import_vendor_file([file.encode()], 0)
    return [one.key for batch in batches for one in batch.keys]


def insert_device_keys(engine: Engine, sealed: Sequence[pb.SealedKey]) -> None:
    """Rows of `keys` for them."""
    now = {"created_at": datetime.now(UTC)}
    with writing(engine) as connection:
        connection.execute(keys.insert(), [key_row("device", one) | now for one in sealed])


class EncryptorProcess:
    """`portcullis encryptor` with its own configuration.

    `custody`: TOML of its section's tables; `also`: "host:port" that it listens on as well.
    """

    def __init__(self, home: Path, custody: str = "", also: str | None = None) -> None:
        self.home = home
        self.monitor = f"127.0.0.1:{free_port()}"
        self.address = f"unix:{home}/encryptor.sock"
        listens = [self.address] if also is None else [self.address, also]
        self.config = home / "portcullis.toml"
        self.log = home / "encryptor.log"
        self.config.write_text(
            f'[encryptor]\nlisten = {json.dumps(listens)}\nmonitor = "{self.monitor}"\n'
            f'master_key_file = "{home}/master.json"\n{custody}\n'
            f'[emmg]\nencryptor = "{self.address}"\n'
            f'[scheduler]\nencryptor = "{self.address}"\n'
        )
        self.process: subprocess.Popen[bytes] | None = None

    def init(self) -> None:
        """A first master, in the file."""
        init_masters(self.home / "master.json", "m1")

    def start(self) -> None:
        """Start it and wait until its monitor answers; ready or not."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "portcullis.cli.main", "encryptor"]
                + ["--config", str(self.config)],
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 60
        while self.ready() is None:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)  # a starting process has no event to wait on

    def ready(self) -> dict[str, str] | None:
        """What fails of its readiness: nothing when it is ready; None while it does not answer."""
        try:
            failed: dict[str, str] = httpx.get(f"http://{self.monitor}/readyz").json()["failed"]
        except httpx.TransportError:
            return None
        return failed

    def wait_ready(self) -> None:
        """Wait until nothing fails."""
        end = time.monotonic() + 60
        while self.ready() != {}:
            assert time.monotonic() < end, self.ready()
            time.sleep(0.1)  # it is asked over HTTP

    def metric(self, name: str) -> float:
        """The sum of a metric's samples; `name` may carry labels."""
        text = httpx.get(f"http://{self.monitor}/metrics").text
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name)
        )

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """In order; must end well."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self.log.read_text()

    def client(self) -> EncryptorClient:
        """A client of it."""
        return EncryptorClient(self.address)


@contextmanager
def running(process: EncryptorProcess) -> Iterator[EncryptorClient]:
    """Start it, hand out a client, stop it."""
    process.start()
    try:
        with process.client() as client:
            yield client
    finally:
        process.stop()
