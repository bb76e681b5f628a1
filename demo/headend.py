"""The head-end of the demo: its input stream, its boxes, its configuration, its process."""

import csv
import json
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

CONFIG = """\
[database]
url = "sqlite:///{home}/state/portcullis.db"

[gateway]
listen = "127.0.0.1:{gateway}"
monitor = "127.0.0.1:{monitor[0]}"
request_log = "{home}/requests.jsonl"
oauth_dir = "{home}/state/oauth"

[emmg]
monitor = "127.0.0.1:{monitor[1]}"
encryptor = "unix:{home}/state/encryptor.sock"

[encryptor]
listen = "unix:{home}/state/encryptor.sock"
master_key_file = "{home}/state/keys/master.json"
monitor = "127.0.0.1:{monitor[2]}"

[scheduler]
encryptor = "unix:{home}/state/encryptor.sock"
monitor = "127.0.0.1:{monitor[4]}"

[auditor]
dir = "{home}/state/audit"
key_file = "{home}/state/keys/audit-signing-key.pem"
anchors = ["dir:{home}/anchors"]
monitor = "127.0.0.1:{monitor[6]}"

[mux]
listen = "127.0.0.1:{mux}"
input = "file:{stream}"
outputs = ["file:{home}/out.ts", "udp://127.0.0.1:{ts}"]
monitor = "127.0.0.1:{monitor[5]}"

[cycler]
monitor = "127.0.0.1:{monitor[3]}"
asrun_dir = "{home}/asrun"

[[cycler.stream]]
client_id = 0xFFF00001
data_id = 1
mux = "127.0.0.1:{mux}"
bandwidth_kbit_s = 1000

[[cycler.stream.class]]
name = "fresh"
every = "2s"
airings = 5
[[cycler.stream.class]]
name = "recent"
every = "10s"
airings = 20
min_share = 0.1
[[cycler.stream.class]]
name = "steady"
every = "30s"
min_share = 0.3
"""

SERVICES = ["testsrc2", "smptehdbars", "rgbtestsrc"]
STREAM_S = 170


def make_stream(path: Path) -> None:
    """Make a constant-rate transport stream of three services with ffmpeg's test sources."""
    command = ["ffmpeg", "-v", "error", "-y"]
    for number, source in enumerate(SERVICES):
        command += ["-f", "lavfi", "-i", f"{source}=size=320x240:rate=25:duration={STREAM_S}"]
        tone = f"sine=frequency={300 + 200 * number}:sample_rate=48000:duration={STREAM_S}"
        command += ["-f", "lavfi", "-i", tone]
    for number in range(2 * len(SERVICES)):
        command += ["-map", str(number)]
    command += ["-c:v", "mpeg2video", "-b:v", "350k", "-maxrate", "500k", "-bufsize", "500k"]
    command += ["-c:a", "mp2", "-b:a", "64k"]
    for number in range(len(SERVICES)):
        streams = f"st={2 * number}:st={2 * number + 1}"
        command += ["-program", f"title=Service {number + 1}:program_num={number + 1}:{streams}"]
    part = path.with_suffix(".part")
    subprocess.run([*command, "-muxrate", "4M", "-f", "mpegts", str(part)], check=True)
    part.rename(path)


def make_boxes(home: Path, device_ids: list[str]) -> None:
    """Make the factory data of pretend boxes: devices.json, and the vendor's key file."""
    boxes = [
        {"device_id": device_id, "device_key": secrets.token_hex(32)} for device_id in device_ids
    ]
    (home / "devices.json").write_text(json.dumps(boxes, indent=1), encoding="utf-8")
    with (home / "state" / "devices.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["device_id", "key_hex"])
        writer.writerows([box["device_id"], box["device_key"]] for box in boxes)


def free_ports(count: int) -> list[int]:
    """TCP ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


class HeadEnd:
    """A running `portcullis up`."""

    def __init__(self, home: Path, stream: Path) -> None:
        self.home = home
        gateway, mux, self.ts_port, *self.monitors = free_ports(10)
        self.config = home / "state" / "portcullis.toml"
        self.config.write_text(
            CONFIG.format(
                home=home.resolve(),
                stream=stream.resolve(),
                gateway=gateway,
                mux=mux,
                ts=self.ts_port,
                monitor=self.monitors,
            ),
            encoding="utf-8",
        )

    def command(self, *words: str) -> list[str]:
        """A `portcullis` command on this head-end."""
        head, *rest = words
        return [sys.executable, "-m", "portcullis.cli.main", head, *rest]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start it, wait until it is ready, stop it in order at the end."""
        log = (self.home / "state" / "up.log").open("wb")
        command = self.command(
            "up", "--state-dir", str(self.home / "state"), "--config", str(self.config)
        )
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._wait(process)
            yield
        finally:
            process.terminate()
            process.wait(60)
            log.close()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + 60
        while not all(self._ready(port) for port in self.monitors):
            if process.poll() is not None or time.monotonic() > end:
                log = self.home / "state" / "up.log"
                raise SystemExit(f"the head-end did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)

    def _ready(self, port: int) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def metric(self, room: int, name: str) -> float:
        """The sum of a metric's samples at one room's monitoring port."""
        text = httpx.get(f"http://127.0.0.1:{self.monitors[room]}/metrics").text
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if re.split(r"[{ ]", line, maxsplit=1)[0] == name
        )
