"""Rooms as real processes on one configuration: started, asked, killed, held, ended."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from click.testing import CliRunner, Result
from cycler_peer import free_port
from gateway_sms import ISSUER, KEY, token

from portcullis.cli.main import cli
from portcullis.keys import init_masters
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.scheduler.imports import import_vendor_file
from portcullis.store.database import engine_for

CONFIG = """
[database]
url = "{url}"
[gateway]
listen = "127.0.0.1:{api}"
request_log = "{home}/requests.jsonl"
issuer = "{issuer}"
jwks = "{home}/jwks.json"
[emmg]
encryptor = "unix:{home}/encryptor.sock"
[encryptor]
listen = "unix:{home}/encryptor.sock"
master_key_file = "{home}/master.json"
[scheduler]
encryptor = "unix:{home}/encryptor.sock"
[auditor]
dir = "{home}/audit"
key_file = "{home}/key.pem"
[mux]
listen = "127.0.0.1:{mux}"
input = "filler"
outputs = ["file:{home}/out.ts"]
[cycler]
asrun_dir = "{home}/asrun"
[[cycler.stream]]
mux = "127.0.0.1:{mux}"
[[cycler.stream.class]]
name = "always"
every = "200ms"
"""


PROGRAM = """
import importlib, sys
from pathlib import Path
from portcullis.runtime.config import ConfigSource, LogConfig
from portcullis.runtime.logging import set_up_logging
from portcullis.runtime.service import run
set_up_logging(sys.argv[1], LogConfig())
room = importlib.import_module(f"portcullis.{sys.argv[1]}.main")
run(lambda: room.main(ConfigSource.load(Path(sys.argv[2]))))
"""


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Wait for what another process does; it can only be asked."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.05)


class Room:
    """One process of a house."""

    def __init__(self, name: str, command: Sequence[str], log: Path, **environ: str) -> None:
        self.name = name
        self.log = log
        self.monitor = free_port()
        monitor = {f"PORTCULLIS_{name.upper()}__MONITOR": f"127.0.0.1:{self.monitor}"}
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command, env=os.environ | monitor | environ, stdout=errors, stderr=errors
            )

    def fetch(self, path: str, seconds: float = 10.0) -> tuple[int, str]:
        """Status and body of the monitoring port; 0 while nobody answers there."""
        url = f"http://127.0.0.1:{self.monitor}{path}"
        try:
            with urllib.request.urlopen(url, timeout=seconds) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return 0, ""

    def readyz(self) -> dict[str, Any]:
        """What `/readyz` says; empty while nobody answers."""
        body = self.fetch("/readyz")[1]
        said: dict[str, Any] = json.loads(body) if body else {}
        return said

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        lines = [line for line in self.fetch("/metrics")[1].splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line[len(name)] in " {")

    def wait_ready(self) -> None:
        """Wait until it can do its work."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.fetch("/readyz")[0] == 200

        wait_until(is_ready, f"{self.name} ready: {self.readyz()} {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.process.wait()

    def hold(self) -> None:
        """Let it hang: its connections stay, it answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """SIGTERM, as a supervisor would; the status, or -9 if it did not end in time."""
        self.process.terminate()
        return self.ended()

    def ended(self) -> int:
        """Wait out the ten seconds after SIGTERM, and five more for a loaded machine."""
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9


class House:
    """Processes on one configuration and one database; ended, whatever happens, by the fixture."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url
        self.api, self.mux_port = free_port(), free_port()
        self.encryptor = f"unix:{home}/encryptor.sock"
        self.rooms: list[Room] = []
        self.config = home / "portcullis.toml"
        self.config.write_text(
            CONFIG.format(url=url, home=home, api=self.api, mux=self.mux_port, issuer=ISSUER)
        )
        (home / "jwks.json").write_text(json.dumps({"keys": [KEY.as_dict(private=False)]}))
        init_masters(home / "master.json", "m1")

    def start(self, name: str, **environ: str) -> Room:
        """Start a room; `environ` overrides keys of its section, as `listen="…"`."""
        overrides = {f"PORTCULLIS_{key.upper()}": value for key, value in environ.items()}
        command = [sys.executable, "-c", PROGRAM, name, str(self.config)]
        log = self.home / f"{name}-{len(self.rooms)}.log"
        room = Room(name, command, log, **overrides)
        self.rooms.append(room)
        return room

    def start_ready(self, *names: str) -> list[Room]:
        """Start rooms side by side and wait for each."""
        started = [self.start(name) for name in names]
        for room in started:
            room.wait_ready()
        return started

    def import_boxes(self, *device_ids: int) -> None:
        """Import device keys; the encryptor must be up."""
        lines = ["device_id,key_hex", *(f"{one},{one.to_bytes(16).hex()}" for one in device_ids)]
        path = self.home / f"boxes-{device_ids[0]}-{len(device_ids)}.csv"
        path.write_text("\n".join(lines) + "\n")
        engine = engine_for(self.url)
        with EncryptorClient(self.encryptor) as client:
            assert not import_vendor_file(engine, client, path, lambda _: None).lines_refused
        engine.dispose()

    @contextmanager
    def sms(self, api: int | None = None) -> Iterator[httpx.Client]:
        """An SMS at a gateway."""
        headers = {"Authorization": f"Bearer {token()}"}
        url = f"http://127.0.0.1:{api or self.api}"
        with httpx.Client(base_url=url, headers=headers, timeout=20) as client:
            yield client

    def command(self, *words: str) -> Result:
        """Run a command of the operator, in this process, with answers in JSON."""
        return CliRunner().invoke(cli, [*words, "--json", "--config", str(self.config)])

    def close(self) -> None:
        """Kill what is left."""
        for room in self.rooms:
            room.process.kill()
        for room in self.rooms:
            room.process.wait()


@contextmanager
def held(*processes: Room | Any) -> Iterator[None]:  # noqa: ANN401 (rooms, or database servers)
    """Let processes hang for a while."""
    with ExitStack() as stack:
        for one in processes:
            one.process.send_signal(signal.SIGSTOP)
            stack.callback(one.process.send_signal, signal.SIGCONT)
        yield
