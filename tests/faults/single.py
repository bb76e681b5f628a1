"""A head-end of one process a room, without a load balancer: for what is done to one of each."""

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
from sqlalchemy import Engine

from demo.headend import HeadEnd, make_boxes
from portcullis.store.database import engine_for
from tests.faults.boxes import Boxes
from tests.faults.headend import make_certificate
from tests.faults.processes import Keeper, Part, answers_ok
from tests.faults.sms import PRODUCTS, Access, Sms
from tests.faults.verdict import kept
from tests.ports import free_ports

MONITORS = ("gateway", "emmg", "encryptor", "cycler", "scheduler", "mux")
SCOPES = ("device", "entitlement", "message", "product", "read")


class Single:
    """Configuration, boxes, API client; `running` starts it.

    Attributes:
        ledger: the SMS's file of every 2xx.
        monitors: monitoring port of each room.
    """

    def __init__(self, home: Path, database_url: str, boxes: int) -> None:
        self.home = home
        (home / "state").mkdir()
        self._demo = HeadEnd(home, Path("unused"))
        self._url = database_url
        self.ledger = home / "ledger.jsonl"
        self.monitors = dict(zip(MONITORS, self._demo.monitors, strict=False))
        self.devices = [str(number) for number in range(1001, 1001 + boxes)]
        self.replace('url = "sqlite.*', f'url = "{database_url}"')
        self.replace('input = "file:.*', 'input = "filler"')
        make_boxes(home, self.devices)
        make_certificate(home)  # the SMS's client wants one to trust
        self.run("migrate")
        self.run("keys", "init")
        words = [word for scope in SCOPES for word in ("--scope", scope)]
        client = json.loads(self.run("clients", "add", "load", "--json", *words))
        api = re.findall('listen = "(127.*?)"', self.config)[0]
        self.access = Access(
            f"http://{api}", client["client_id"], client["client_secret"], home / "certificate.pem"
        )

    def replace(self, pattern: str, line: str) -> None:
        """Change the configuration."""
        self._demo.config.write_text(re.sub(pattern, line, self.config), encoding="utf-8")

    def command(self, *words: str) -> list[str]:
        """A `portcullis` command on this head-end."""
        return [*self._demo.command(*words), "--config", str(self._demo.config)]

    def run(self, *words: str) -> str:
        """Run a command to its end; its standard output."""
        done = subprocess.run(self.command(*words), check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def running(
        self,
        prefixes: Mapping[str, Sequence[str]] | None = None,
        seconds: Mapping[str, Mapping[str, object]] | None = None,
    ) -> Iterator[Boxes]:
        """Every room a process, with boxes at the end of the stream, keys and products there.

        Args:
            prefixes: what stands before the command of a process, by its name.
            seconds: rooms of which there are two, and what the second has otherwise in its
                section; its name is the room's with a 2.
        """
        environs = {f"{room}2": _overrides(room, keys) for room, keys in (seconds or {}).items()}
        self.monitors |= dict(zip(environs, free_ports(len(environs)), strict=True))
        parts = [
            Part(
                name,
                [*(prefixes or {}).get(name, ()), *self.command(name.rstrip("2"))],
                partial(answers_ok, port),
                _overrides(name.rstrip("2"), {"monitor": f"127.0.0.1:{port}"})
                | environs.get(name, {}),
            )
            for name, port in self.monitors.items()
        ]
        with (
            Boxes(f"udp://127.0.0.1:{self._demo.ts_port}", self.home / "devices.json") as boxes,
            Keeper(parts, self.home) as self.keeper,
        ):
            self.run("keys", "import-devices", str(self.home / "state" / "devices.csv"))
            with httpx.Client(base_url=self.access.url, timeout=30) as http:
                http.headers["Authorization"] = f"Bearer {self.access.token(http)}"
                for product_id in PRODUCTS:
                    http.put(f"/products/{product_id}", json={"name": "P"}).raise_for_status()
            yield boxes

    @property
    def config(self) -> str:
        """The configuration, TOML."""
        return self._demo.config.read_text(encoding="utf-8")

    def pid(self, name: str) -> int:
        """The process of this name."""
        process = self.keeper.parts[name].process
        assert process is not None
        return process.pid

    def metric(self, process: str, name: str) -> float:
        """The sum of a metric's samples."""
        text = httpx.get(f"http://127.0.0.1:{self.monitors[process]}/metrics", timeout=20).text
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if re.split(r"[{ ]", line, maxsplit=1)[0] == name
        )

    def go_on(self, sms: Sms, seconds: float) -> None:
        """Let orders come for a while: all the time some are answered."""
        before = sms.answered
        time.sleep(seconds)
        assert sms.answered > before

    def engine(self) -> Engine:
        """The database."""
        return engine_for(self._url, pool_size=1)

    def verdict(self, sms: Sms) -> None:
        """No order that had its 2xx is lost or doubled, no process ended by itself."""
        engine = self.engine()
        found = kept(engine, self.access.client_id, self.ledger)
        engine.dispose()
        assert sms.surprises == []
        assert (found.lost, found.doubled) == ([], [])
        assert self.keeper.own_deaths == []


def _overrides(room: str, keys: Mapping[str, object]) -> dict[str, str]:
    """An environment that overrides keys of a room's section."""
    return {
        f"PORTCULLIS_{room.upper()}__{key.upper()}": value
        if isinstance(value, str)
        else json.dumps(value)
        for key, value in keys.items()
    }
