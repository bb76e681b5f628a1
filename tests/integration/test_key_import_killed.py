"""The process that imports a vendor's file, killed for real, and what it shows to who waits."""

import json
import os
import pty
import select as ready
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.store.database import engine_for
from portcullis.store.schema import key_imports, keys
from tests.integration.encryptor_process import EncryptorProcess, running
from tests.integration.test_key_import import check_keys, line, write

DEVICES = 4000


@pytest.fixture
def process(mariadb_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EncryptorProcess:
    """An encryptor with a master in a file."""
    monkeypatch.setenv("PORTCULLIS_DATABASE__URL", mariadb_url)
    process = EncryptorProcess(tmp_path)
    process.init()
    return process


@pytest.fixture
def client(process: EncryptorProcess) -> Iterator[EncryptorClient]:
    """A client of it, running."""
    with running(process) as client:
        yield client


@pytest.fixture
def engine(mariadb_url: str) -> Iterator[Engine]:
    """The database."""
    engine = engine_for(mariadb_url)
    yield engine
    engine.dispose()


def dealt_with(engine: Engine) -> int:
    """How many lines of the file the import has dealt with."""
    with engine.connect() as connection:
        return int(connection.execute(select(func.max(key_imports.c.lines))).scalar_one() or 0)


def test_kill_9_in_the_middle_costs_no_key_and_a_bar_shows_how_far_it_is(
    process: EncryptorProcess, client: EncryptorClient, engine: Engine, tmp_path: Path
) -> None:
    """The second run goes on behind what the first has written; each key is there once."""
    path = write(tmp_path / "keys.csv", *(line(n) for n in range(1, DEVICES + 1)))
    command = [sys.executable, "-m", "portcullis.cli.main", "keys", "import-devices", str(path)]
    command += ["--config", str(process.config)]
    screen, theirs = pty.openpty()
    first = subprocess.Popen(
        command, stderr=theirs, stdout=subprocess.DEVNULL, env=os.environ | {"TERM": "xterm"}
    )
    os.close(theirs)
    shown = b""
    while not (0 < dealt_with(engine) <= DEVICES):
        assert first.poll() is None, shown
        shown += read_shown(screen)
    while b"device keys" not in shown:
        shown += read_shown(screen)
    first.kill()
    first.wait(10)
    os.close(screen)
    done = dealt_with(engine)
    assert done <= DEVICES, "it was over before it was killed"

    end = time.monotonic() + 60
    while True:
        again = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
        if "another import runs" not in again.stderr:
            break
        assert time.monotonic() < end
    assert again.returncode == 0, again.stderr
    counts, went_on = (json.loads(one) for one in again.stdout.splitlines())
    assert counts == {
        "imported": DEVICES,
        "already_there": 0,
        "refused": 0,
        "lines": DEVICES + 1,
    }
    assert went_on == {"went_on_behind_line": done}
    with engine.connect() as connection:
        rows = connection.execute(select(func.count()).select_from(keys)).scalar_one()
    assert rows == DEVICES
    check_keys(engine, client, set(range(1, DEVICES + 1)))


def read_shown(screen: int) -> bytes:
    """What has come to a terminal; waits a moment for it."""
    heard, _, _ = ready.select([screen], [], [], 0.02)
    return os.read(screen, 65536) if heard else b""
