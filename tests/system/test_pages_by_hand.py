"""README and tutorial, as a newcomer types them: each block in its terminal."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_ports

REPOSITORY = Path(__file__).parents[2]
ROOMS = ("gateway", "emmg", "encryptor", "cycler", "scheduler", "mux", "auditor")


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
        api, ts, mux, *monitors = free_ports(3 + len(ROOMS))
        self._ports = {"127.0.0.1:8080": f"127.0.0.1:{api}", "127.0.0.1:5000": f"127.0.0.1:{ts}"}
        stream = {"client_id": 0xFFF00001, "data_id": 1, "mux": f"127.0.0.1:{mux}"}
        self._environ = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PORTCULLIS_GATEWAY__LISTEN": f"127.0.0.1:{api}",
            "PORTCULLIS_MUX__LISTEN": f"127.0.0.1:{mux}",
            "PORTCULLIS_MUX__OUTPUTS": json.dumps([f"udp://127.0.0.1:{ts}"]),
            "PORTCULLIS_CYCLER__STREAM": json.dumps([stream | {"bandwidth_kbit_s": 1000}]),
        }
        for room, port in zip(ROOMS, monitors, strict=True):
            self._environ[f"PORTCULLIS_{room.upper()}__MONITOR"] = f"127.0.0.1:{port}"

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


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Where a newcomer sits down."""
    return Desk(tmp_path)


@pytest.mark.timeout(180)
def test_the_readme_brings_an_order_to_a_box(desk: Desk) -> None:
    """With its three blocks, and nothing else."""
    up, watch, orders = blocks("README.md", "Try it by hand")
    with desk.terminal(up) as head_end:
        head_end.until("The head-end is up")
        with desk.terminal(watch) as boxes:
            boxes.until("listening on")
            accepted = desk.run([orders])
            assert accepted.count('"accepted_at"') == 4  # three answers, and where the second is
            boxes.until(
                "1001 active", "1001 gained product 101", "1001 shows message 1: 'Welcome!'"
            )


@pytest.mark.timeout(240)
def test_the_tutorial_shows_what_it_says(desk: Desk) -> None:
    """From the first order to the proof of the record."""
    set_up, up = blocks("docs/tutorial.md", "Start a head-end")[0].splitlines(keepends=True)
    assert set_up == "make setup && . .venv/bin/activate\n"
    [watch] = blocks("docs/tutorial.md", "Watch the boxes")
    token, orders, refused = blocks("docs/tutorial.md", "Be the SMS")
    life, aired = blocks("docs/tutorial.md", "Follow the order")
    [take_away] = blocks("docs/tutorial.md", "Take the right away")
    [record] = blocks("docs/tutorial.md", "Look at the keys and the record")
    with desk.terminal(up) as head_end:
        head_end.until("The head-end is up")
        with desk.terminal(watch) as boxes:
            boxes.until("listening on")
            answers = desk.run([token, orders, refused])
            assert answers.count('"status":"accepted"') == 4
            assert '"code":"transaction_conflict"' in answers
            assert '"code":"unknown_product"' in answers
            boxes.until(
                "1001 active", "1001 gained product 101", "1001 shows message 1: 'Welcome!'"
            )
            assert "on_air_at: 2" in desk.run([life])
            decoded = desk.run([aired])
            assert decoded.count("state for device 1001") > 1
            assert re.search(r"entitlement 1 product_id +0065 +product 101", decoded)
            desk.run([token, take_away])
            boxes.until("1001 lost product 101")
        desk.run([record])
