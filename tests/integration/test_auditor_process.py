"""The auditor as a process: killed at random under load, it misses nothing and forks nothing."""

import random
import subprocess
import sys
import threading
from pathlib import Path

from click.testing import CliRunner
from evidence_log import order

from portcullis.cli.main import cli
from portcullis.store.database import engine_for
from portcullis.store.migrate import migrate
from tests.ports import free_ports

CONFIG = """\
[database]
url = "sqlite:///{home}/p.db"
[auditor]
monitor = "127.0.0.1:{port}"
dir = "{home}/audit"
key_file = "{home}/keys/audit.pem"
anchors = ["dir:{home}/anchors"]
sign_every = "1s"
anchor_every = "1s"
file_bytes = 20000
"""
KILLS = 3


def test_kill_9_at_any_moment_leaves_a_record_that_goes_on(tmp_path: Path) -> None:
    """Orders come all the while; at the end every one is a line, signed and anchored."""
    config = tmp_path / "portcullis.toml"
    config.write_text(CONFIG.format(home=tmp_path, port=free_ports(1)[0]))
    engine = engine_for(f"sqlite:///{tmp_path}/p.db")
    migrate(engine)
    stop = threading.Event()
    ordered = []

    def load() -> None:
        while not stop.is_set():
            order(engine, *range(len(ordered) + 1, len(ordered) + 21))
            ordered.extend(range(20))
            stop.wait(0.1)

    orders = threading.Thread(target=load)
    orders.start()
    chance = random.Random(7)
    log = (tmp_path / "auditor.log").open("ab")
    try:
        for kill in range(KILLS + 1):
            command = [sys.executable, "-m", "portcullis.cli.main", "auditor"]
            process = subprocess.Popen([*command, "--config", str(config)], stderr=log)
            if kill < KILLS:
                _await_growth(tmp_path)
                stop.wait(chance.random())
                process.kill()
                process.wait()
        stop.set()
        orders.join()
        _await_anchor(tmp_path, process)
    finally:
        stop.set()
        process.terminate()
        assert process.wait(30) == 0
        log.close()
        engine.dispose()
    result = CliRunner().invoke(cli, ["audit", "verify", "--state-dir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert f"records: {len(ordered)}" in result.output
    assert any((tmp_path / "anchors").iterdir())


def _await_growth(home: Path) -> None:
    """Wait until the record grows; the test's time-out bounds it."""
    known = _size(home)
    while _size(home) == known:
        threading.Event().wait(0.05)


def _size(home: Path) -> int:
    return sum(len(path.read_bytes()) for path in (home / "audit").glob("*/*") if path.exists())


def _await_anchor(home: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the last auditor has come as far as an anchor: then it can be told to stop."""
    known = set((home / "anchors").glob("*"))
    while set((home / "anchors").glob("*")) == known:
        assert process.poll() is None, (home / "auditor.log").read_text()
        threading.Event().wait(0.1)
