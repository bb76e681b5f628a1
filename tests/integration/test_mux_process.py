"""The multiplexer as a process: EMMs in at one end, boxes watching at the other."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dvbwire.simulcrypt import DataType, EmmgConnection, Event, SectionTspktFlag
from dvbwire.ts import NULL_PACKET, NULL_PID, packetize_section, pid_of
from portcullis.emm import OPEN_END, EntitlementRecord, Kind, State, derive_kek, seal_set

CA_SYSTEM_ID = 0xFFF0
CLIENT = CA_SYSTEM_ID << 16 | 1
DEVICE_ID = 1001
DEVICE_KEY = bytes(range(16))
NOW = 1_800_000_000
BIN = Path(sys.executable).parent
START = """
import sys
from pathlib import Path
from portcullis.mux.main import main
from portcullis.runtime.config import ConfigSource, LogConfig
from portcullis.runtime.logging import set_up_logging
from portcullis.runtime.service import run
set_up_logging("mux", LogConfig())
source = ConfigSource.load(Path(sys.argv[1]))
run(lambda: main(source))
"""


def _free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _mux(tmp_path: Path, **keys: object) -> Iterator[subprocess.Popen[str]]:
    """Run the multiplexer with these keys, once it has started."""
    config = tmp_path / "mux.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    config.write_text("\n".join(["[mux]", *lines]))
    command = [sys.executable, "-c", START, config]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            seen = []
            while '"started"' not in "".join(seen[-1:]):
                seen.append(process.stderr.readline())
                assert process.poll() is None, "".join(seen)
            yield process
        finally:
            process.kill()


def _state(number: int, product_id: int) -> list[bytes]:
    record = EntitlementRecord(product_id, 0, OPEN_END, os.urandom(16))
    return seal_set(
        derive_kek(DEVICE_KEY, CA_SYSTEM_ID, DEVICE_ID, 1),
        os.urandom(16),
        address=DEVICE_ID,
        kind=Kind.STATE,
        epoch=1,
        number=number,
        payload=State(active=True, utc=NOW, entitlements=(record,)).to_payload(),
    )


class _Emmg:
    """A blocking EMMG in packet mode."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._protocol = EmmgConnection(3, CLIENT, 1, SectionTspktFlag.PACKETS)
        self._protocol.open_channel(time.monotonic())
        self._next_event()
        self._protocol.open_stream(1, 1, DataType.EMM, time.monotonic())
        self._next_event()

    def _next_event(self) -> Event:
        self._socket.sendall(self._protocol.data_to_send())
        events: list[Event] = []
        while not events:
            events = self._protocol.receive(self._socket.recv(4096), time.monotonic())
        [event] = events
        return event

    def provide(self, sections: list[bytes]) -> None:
        packets = [packet for each in sections for packet in packetize_section(each, NULL_PID)]
        self._socket.sendall(self._protocol.provide(1, packets))

    def close(self) -> None:
        self._socket.close()


def test_from_an_emmg_to_a_box_and_into_a_file(tmp_path: Path) -> None:
    """Filler input, UDP and file at once; SIGTERM leaves a file of whole packets without error."""
    devices = tmp_path / "devices.json"
    entry = {"device_id": str(DEVICE_ID), "device_key": DEVICE_KEY.hex()}
    devices.write_text(json.dumps([entry]))
    recording = tmp_path / "out.ts"
    listen, monitor = _free_port(), _free_port()
    watch = [BIN / "stbsim", "watch", "udp://127.0.0.1:0", "--devices", devices, "--json"]
    with subprocess.Popen(
        watch, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watcher:
        assert watcher.stdout is not None
        assert watcher.stderr is not None
        url = watcher.stderr.readline().split()[-1]
        with _mux(
            tmp_path,
            listen=f"127.0.0.1:{listen}",
            monitor=f"127.0.0.1:{monitor}",
            outputs=[url, f"file:{recording}"],
        ) as mux:
            emmg = _Emmg(listen)
            emmg.provide(_state(1, 7))
            events = (json.loads(line) for line in watcher.stdout)
            heard = [next(each for each in events if each["event"] != "time") for _ in range(2)]
            assert [each["event"] for each in heard] == ["state", "entitlement_gained"]
            base = f"http://127.0.0.1:{monitor}"
            with urllib.request.urlopen(f"{base}/readyz") as ready:
                assert ready.status == 200
            with urllib.request.urlopen(f"{base}/metrics") as answer:
                metrics = answer.read().decode()
            assert 'portcullis_mux_inserted_packets_total{what="emm"} 1.0' in metrics
            assert 'portcullis_mux_stream_open{client_id="0xFFF00001",data_id="1"' in metrics
            mux.send_signal(signal.SIGTERM)
            assert mux.wait(10) == 0
            emmg.close()
        watcher.kill()
    assert recording.stat().st_size % 188 == 0
    report = subprocess.run(
        [BIN / "stbsim", "report", f"file:{recording}", "--devices", devices],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(report.stdout)
    assert (found["emm_pid"], found["ca_system_id"]) == (0x1F00, CA_SYSTEM_ID)
    assert list(found["boxes"][str(DEVICE_ID)]["products"]) == ["7"]
    expert = subprocess.run(
        ["tshark", "-r", recording, "-q", "-z", "expert", "-o", "mpeg_sect.verify_crc:TRUE"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert expert.stdout.strip() == ""


def test_a_live_input_is_passed_through(tmp_path: Path) -> None:
    """Packets come out as they came in; without an EMMG only the TDT is ever added."""
    source, listen, monitor = _free_port(socket.SOCK_DGRAM), _free_port(), _free_port()
    service = bytes((0x47, 0x01, 0x00, 0x10)) + bytes(184)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as air:
        air.bind(("127.0.0.1", 0))
        air.settimeout(10)
        with _mux(
            tmp_path,
            input=f"udp://127.0.0.1:{source}",
            listen=f"127.0.0.1:{listen}",
            monitor=f"127.0.0.1:{monitor}",
            outputs=[f"udp://127.0.0.1:{air.getsockname()[1]}"],
        ) as mux:
            sent = [service, NULL_PACKET, service] * 7
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for at in range(0, 21, 7):
                    sender.sendto(b"".join(sent[at : at + 7]), ("127.0.0.1", source))
            stream = b"".join(air.recv(2000) for _ in range(3))
            mux.send_signal(signal.SIGTERM)
            assert mux.wait(10) == 0
    assert [stream[at : at + 188] for at in range(0, len(stream), 188)] == sent
    assert pid_of(service) == 0x100


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"input": "file:/no/such.ts"}, "mux.input: /no/such.ts: No such file"),
        ({"input": "tcp://x"}, "mux.input: expected filler, file:PATH or udp://host:port"),
        ({"outputs": ["tcp://x"]}, "mux.outputs: tcp://x: expected udp://host:port or file:PATH"),
        ({"listen": "nowhere"}, "mux.listen: expected"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(
    keys: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    """Before anything is sent; the key is named."""
    config = tmp_path / "mux.toml"
    keys = {"monitor": f"127.0.0.1:{_free_port()}", "listen": f"127.0.0.1:{_free_port()}"} | keys
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    config.write_text("\n".join(["[mux]", *lines]))
    result = subprocess.run(
        [sys.executable, "-c", START, config], capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert complaint in result.stderr
