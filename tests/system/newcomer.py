"""A newcomer at a desk: types what a page says, each block in its terminal."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from portcullis.cli.up import MONITORS
from tests.ports import free_ports

REPOSITORY = Path(__file__).parents[2]


def blocks(page: str, *headings: str) -> list[str]:
    """The shell blocks of some sections, in order."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    sections = [text.split(f"\n## {heading}\n")[1].split("\n## ")[0] for heading in headings]
    return [
        block
        for section in sections
        for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    ]


class Terminal:
    """Where a command runs that does not end by itself."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._out = process.stdout

    def until(self, *signs: str) -> None:
        """Read on until each sign was seen, in this order."""
        said = []
        for sign in signs:
            while not said or sign not in said[-1]:
                said.append(self._out.readline())
                assert said[-1], f"it ended before it said {sign!r}: {''.join(said)}"


class Desk:
    """A newcomer's directory and ports: as the page has them, but free on this machine."""

    def __init__(self, home: Path) -> None:
        self.home = home
        api, ts, mux, *monitors = free_ports(3 + len(MONITORS))
        self._ports = {"127.0.0.1:8080": f"127.0.0.1:{api}", "127.0.0.1:5000": f"127.0.0.1:{ts}"}
        stream = {"client_id": 0xFFF00001, "data_id": 1, "mux": f"127.0.0.1:{mux}"}
        self._environ = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PORTCULLIS_GATEWAY__LISTEN": f"127.0.0.1:{api}",
            "PORTCULLIS_MUX__LISTEN": f"127.0.0.1:{mux}",
            "PORTCULLIS_MUX__OUTPUTS": json.dumps([f"udp://127.0.0.1:{ts}"]),
            "PORTCULLIS_CYCLER__STREAM": json.dumps([stream | {"bandwidth_kbit_s": 1000}]),
        }
        for (room, there), port in zip(MONITORS.items(), monitors, strict=True):
            self._environ[f"PORTCULLIS_{room.upper()}__MONITOR"] = f"127.0.0.1:{port}"
            self._ports[f"127.0.0.1:{there}"] = f"127.0.0.1:{port}"

    def here(self, block: str) -> str:
        """The block without the set-up, which the tests have had, on free ports."""
        block = block.replace("make setup && ", "").replace(". .venv/bin/activate\n", "")
        for there, here in self._ports.items():
            block = block.replace(there, here)
        return block

    @contextmanager
    def terminal(self, block: str) -> Iterator["Terminal"]:
        """Have a block run until it is told to stop."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec env {self.here(block)}"],
            cwd=self.home,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield Terminal(process)
        finally:
            process.terminate()
            process.communicate()

    def run(self, lines: list[str]) -> str:
        """Run blocks in one shell; returns what they print."""
        script = "set -eu\n" + "".join(self.here(block) for block in lines)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.home,
            env=self._environ,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
