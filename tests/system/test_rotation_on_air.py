"""Rotation over the air: who holds what at each switch, while services are killed."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from demo.headend import HeadEnd, make_boxes
from dvbwire.ts import PACKET_SIZE
from portcullis.store.database import engine_for
from stbsim.devices import read_devices
from stbsim.receiver import Receiver
from tests.scrambler import Live, Scrambler

PRODUCT = 101
ENTITLED = [str(number) for number in range(1001, 1009)]
STRANGER, SLEEPER, THIEF = "1009", "1010", "1011"
STREAM = {
    "client_id": 0xFFF00001,
    "data_id": 1,
    "bandwidth_kbit_s": 1000,
    "class": [
        {"name": "fresh", "every": "500ms", "airings": 2},
        {"name": "steady", "every": "1s"},
    ],
}
TIMES = {
    "PRODUCT_KEY_PERIOD": "8s",
    "PREPARE_AHEAD": "3s",
    "AIR_CYCLES": "2",
    "CHAIN_EPOCHS": "2",
}
KILL_EVERY_S = 2.5
KILLED = ("scheduler", "emmg", "cycler", "encryptor", "mux")


class House:
    """The head-end, its boxes, and what content is scrambled under: one look at all of it."""

    def __init__(self, home: Path, head_end: HeadEnd) -> None:
        self.home, self.head_end = home, head_end
        self.engine: Engine = engine_for(f"sqlite:///{home}/state/portcullis.db")
        boxes = {str(box.device_id): box for box in read_devices(home / "devices.json")}
        self.sleeper = boxes.pop(SLEEPER)
        self.boxes = boxes
        self.receiver = Receiver(boxes.values())
        self.stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.stream.bind(("127.0.0.1", head_end.ts_port))
        self.stream.setblocking(False)
        self.switches: list[Live] = []
        master = home / "state" / "keys" / "master.json"
        self.live = Scrambler(self.engine, master, PRODUCT).live

    def close(self) -> None:
        """Let go of files and tables."""
        self.stream.close()
        self.engine.dispose()

    def packets(self) -> Iterator[bytes]:
        """What has been aired since the last look."""
        with suppress(BlockingIOError):
            while True:
                datagram = self.stream.recv(65536)
                for at in range(0, len(datagram), PACKET_SIZE):
                    yield datagram[at : at + PACKET_SIZE]

    def hear(self) -> None:
        """Give the boxes what has been aired; the one asleep hears nothing."""
        for packet in self.packets():
            self.receiver.push(packet)

    def holds(self, device_id: str, live: Live) -> bool:
        """Whether a box could show what is scrambled under an epoch."""
        return self.boxes[device_id].product_key(PRODUCT, live.epoch % 256) == live.key

    def watch(self, until: Callable[[], bool], limit_s: float = 120.0) -> None:
        """Look at everything again and again: nobody entitled is dark, nobody else sees."""
        end = time.monotonic() + limit_s
        while not until():
            assert time.monotonic() < end, "it takes too long"
            live = self.live()
            self.hear()
            assert live is not None
            if not self.switches or self.switches[-1].epoch != live.epoch:
                self.switches.append(live)
            dark = [one for one in ENTITLED if not self.holds(one, live)]
            assert dark == [], f"at epoch {live.epoch}"
            assert not self.holds(STRANGER, live)
            time.sleep(0.05)  # a stream and a table are looked at

    def kill(self, room: str) -> None:
        """Kill a service; `portcullis up` starts it again."""
        found = subprocess.run(
            ["pgrep", "-f", f"main {room} --config {self.home}"],
            check=True,
            capture_output=True,
            text=True,
        )
        for process in found.stdout.split():
            os.kill(int(process), signal.SIGKILL)

    def wait(self, done: Callable[[], bool], step: Callable[[], None] = lambda: None) -> None:
        """Wait until something is so."""
        end = time.monotonic() + 60
        while not done():
            assert time.monotonic() < end
            step()
            time.sleep(0.05)  # a stream is looked at


@contextmanager
def sms(home: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """An SMS that gives one order at a time."""
    client = json.loads((home / "state" / "client.json").read_text())
    numbers = iter(range(1000))
    with httpx.Client(base_url=client["api_url"], timeout=20) as http:
        grant = {"grant_type": "client_credentials"}
        answer = http.post(
            client["token_url"], data=grant, auth=(client["client_id"], client["client_secret"])
        )
        http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

        def order(op: str, **body: Any) -> dict[str, Any]:  # noqa: ANN401 (bodies differ)
            said = http.post(f"/{op}", json={"transaction_id": f"t{next(numbers)}"} | body)
            assert said.status_code == 202, said.text
            answered: dict[str, Any] = said.json()
            return answered

        assert http.put(f"/products/{PRODUCT}", json={"name": "p"}).is_success
        yield order


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A head-end whose keys change every few seconds, and eleven boxes."""
    (tmp_path / "state").mkdir()
    make_boxes(tmp_path, [*ENTITLED, STRANGER, SLEEPER, THIEF])
    head_end = HeadEnd(tmp_path, Path("unused"))
    mux = head_end.config.read_text().split('mux = "')[1].split('"')[0]
    monkeypatch.setenv("PORTCULLIS_MUX__INPUT", "filler")
    monkeypatch.setenv("PORTCULLIS_CYCLER__STREAM", json.dumps([STREAM | {"mux": mux}]))
    for name, value in TIMES.items():
        monkeypatch.setenv(f"PORTCULLIS_SCHEDULER__{name}", value)
    with head_end.running():
        vendor = str(tmp_path / "state" / "devices.csv")
        config = ["--config", str(head_end.config)]
        subprocess.run(
            [*head_end.command("keys", "import-devices", vendor), *config],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        house = House(tmp_path, head_end)
        yield house
        house.close()


@pytest.mark.timeout(300)
def test_no_box_is_dark_and_none_sees_what_it_should_not(house: House) -> None:
    """Two rotations by the clock, one of them to a new chain, and one after a blacklisting."""
    with sms(house.home) as order:
        for device_id in [*ENTITLED, STRANGER, SLEEPER, THIEF]:
            order("adddevice", device_id=device_id)
        for device_id in [*ENTITLED, SLEEPER, THIEF]:
            order("addentitlement", device_id=device_id, product_id=PRODUCT)
    house.wait(lambda: all(house.boxes[one].entitlements for one in [*ENTITLED, THIEF]), house.hear)

    victims = list(KILLED)
    killed_at = time.monotonic()

    def two_switches() -> bool:
        nonlocal killed_at
        if victims and time.monotonic() - killed_at > KILL_EVERY_S:
            killed_at = time.monotonic()
            house.kill(victims.pop())
        return len(house.switches) >= 3 and not victims

    house.watch(two_switches)
    assert len({live.chain for live in house.switches}) >= 2

    thief = house.receiver.boxes.pop(int(THIEF))  # it hears nothing of its end, and goes on
    config = ["--config", str(house.head_end.config)]
    said = subprocess.run(
        [*house.head_end.command("devices", "blacklist", THIEF, "--json"), *config],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(said.stdout)["new_chains_of"] == [PRODUCT]
    before = house.switches[-1]
    house.watch(lambda: house.switches[-1].chain > before.chain)
    live = house.switches[-1]
    assert thief.product_key(PRODUCT, live.epoch % 256) != live.key

    slept_through = len(house.switches)
    assert slept_through >= 3
    woken = Receiver([house.sleeper])
    states: list[object] = []

    def awake() -> bool:
        for packet in house.packets():
            house.receiver.push(packet)
            states.extend(
                event for event in woken.push(packet) if type(event).__name__ == "StateHeld"
            )
            if states:
                return True
        return False

    house.wait(awake)
    assert len(states) == 1
    now = house.live()
    assert now is not None
    assert house.sleeper.product_key(PRODUCT, now.epoch % 256) == now.key
