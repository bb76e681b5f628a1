"""Proof 4: from the release before to this one while orders come, as docs/operations/upgrade.md."""

import json
import re
import shutil
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest

from demo.headend import HeadEnd, make_boxes
from portcullis.store.database import engine_for
from portcullis.store.migrate import schema_problem
from tests.conftest import MariaDb
from tests.faults.boxes import Boxes
from tests.faults.figures import record
from tests.faults.headend import make_certificate
from tests.faults.processes import Keeper, Part, answers_ok
from tests.faults.scale import IS_FULL
from tests.faults.sms import PRODUCTS, Access, Sms
from tests.faults.verdict import kept, wrong_boxes

PREVIOUS = Path(__file__).parent / "previous.zip"
PAGE = (Path(__file__).parents[2] / "docs" / "operations" / "upgrade.md").read_text()
ROOMS = re.findall(r"systemctl restart portcullis-(\w+)", PAGE)
BEFORE, AFTER = re.findall(r"^ *portcullis (migrate.*) --config", PAGE, re.MULTILINE)
MONITORS = ("gateway", "emmg", "encryptor", "cycler", "scheduler", "mux")
SETTLE_S = 90.0
BOXES = 60 if IS_FULL else 12
STEP_S = 10.0 if IS_FULL else 1.0


@pytest.mark.timeout(900)
def test_a_release_follows_the_one_before_under_load(
    mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The release before runs on the new schema; rooms change one by one; not an order is lost."""
    home = Path(tempfile.mkdtemp(prefix="portcullis-upgrade-", dir="/var/tmp"))
    (home / "state").mkdir()
    with ZipFile(PREVIOUS) as release:
        release.extractall(home / "previous")
    monkeypatch.setenv("PYTHONPATH", str(home / "previous"))
    url = mariadb.new_database()
    demo = HeadEnd(home, Path("unused"))
    text = re.sub('url = "sqlite.*', f'url = "{url}"', demo.config.read_text())
    text = re.sub('input = "file:.*', 'input = "filler"', text)
    demo.config.write_text(text)
    devices = [str(number) for number in range(1001, 1001 + BOXES)]
    make_boxes(home, devices)
    make_certificate(home)  # the SMS's client wants one to trust
    client = _prepare(demo)
    api = re.findall('listen = "(127.*?)"', text)[0]
    access = Access(f"http://{api}", *client, home / "certificate.pem")
    ledger = home / "ledger.jsonl"
    started = time.monotonic()
    engine = engine_for(url, pool_size=1)
    monitors = dict(zip(MONITORS, demo.monitors, strict=False))
    parts = [
        Part(room, _command(demo, room), partial(answers_ok, monitors[room])) for room in ROOMS
    ]
    with (
        Boxes(f"udp://127.0.0.1:{demo.ts_port}", home / "devices.json") as boxes,
        Keeper(parts, home) as keeper,
    ):
        _run(demo, "keys", "import-devices", str(home / "state" / "devices.csv"))
        _stock(access)
        with Sms(access, ledger, devices, seed=seed, run="up", pause_s=0.5) as sms:
            _go_on(sms, STEP_S)
            monkeypatch.delenv("PYTHONPATH")
            assert schema_problem(engine) is not None
            _run(demo, *BEFORE.split())
            assert schema_problem(engine) is None
            _go_on(sms, STEP_S)  # the release before, on the schema of this one
            for room in ROOMS:
                keeper.stop(room)
                keeper.wait_back(room)
                _go_on(sms, STEP_S)
            _run(demo, *AFTER.split())
            _go_on(sms, STEP_S)
        wrong = wrong_boxes(boxes, ledger, SETTLE_S)
        assert sms.surprises == []
        found = kept(engine, access.client_id, ledger)
        engine.dispose()
        assert (found.lost, found.doubled, wrong) == ([], [], {})
        assert keeper.own_deaths == []
    record(
        "4-upgrade",
        "migration and roll-out from the release before",
        for_s=time.monotonic() - started,
        orders=sms.answered,
        lost=len(found.lost),
        doubled=len(found.doubled),
        boxes_wrong=len(wrong),
        worst_gap_s=sms.worst_gap_s,
        tries_repeated=sms.failed_tries.total(),
        seed=seed,
    )
    shutil.rmtree(home)


def _command(demo: HeadEnd, *words: str) -> list[str]:
    return [*demo.command(*words), "--config", str(demo.config)]


def _run(demo: HeadEnd, *words: str) -> str:
    done = subprocess.run(_command(demo, *words), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _prepare(demo: HeadEnd) -> tuple[str, str]:
    """Schema, master, API client; its id and secret."""
    _run(demo, "migrate")
    _run(demo, "keys", "init")
    scopes = ("device", "entitlement", "message", "product", "read")
    words = [word for scope in scopes for word in ("--scope", scope)]
    client = json.loads(_run(demo, "clients", "add", "load", "--json", *words))
    return client["client_id"], client["client_secret"]


def _stock(access: Access) -> None:
    """The products that the SMS grants."""
    with httpx.Client(base_url=access.url, timeout=30) as http:
        http.headers["Authorization"] = f"Bearer {access.token(http)}"
        for product_id in PRODUCTS:
            http.put(f"/products/{product_id}", json={"name": "P"}).raise_for_status()


def _go_on(sms: Sms, seconds: float) -> None:
    """Let orders come for a while: all the time some are answered."""
    before = sms.answered
    time.sleep(seconds)
    assert sms.answered > before
