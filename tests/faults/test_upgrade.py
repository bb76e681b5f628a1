"""Proof 4: from the release before to this one while orders come, as docs/operations/upgrade.md."""

import re
import tempfile
import time
from pathlib import Path
from zipfile import ZipFile

import pytest

from portcullis.store.revisions import schema_problem
from tests.conftest import MariaDb
from tests.faults.figures import record
from tests.faults.scale import IS_FULL
from tests.faults.single import MONITORS, Single
from tests.faults.sms import Sms
from tests.faults.verdict import wrong_boxes

PREVIOUS = Path(__file__).parent / "previous.zip"
PAGE = (Path(__file__).parents[2] / "docs" / "operations" / "upgrade.md").read_text()
ROOMS = re.findall(r"systemctl restart portcullis@(\w+)", PAGE)
BEFORE, AFTER = re.findall(r"^ *portcullis (migrate.*) --config", PAGE, re.MULTILINE)
SETTLE_S = 90.0
BOXES = 60 if IS_FULL else 12
STEP_S = 10.0 if IS_FULL else 1.0


@pytest.mark.timeout(900)
def test_a_release_follows_the_one_before_under_load(
    mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The release before runs on the new schema; rooms change one by one; not an order is lost."""
    with tempfile.TemporaryDirectory(prefix="portcullis-upgrade-", dir="/var/tmp") as directory:
        home = Path(directory)
        previous = home / "previous"
        with ZipFile(PREVIOUS) as release:
            release.extractall(previous)
        monkeypatch.setenv("PYTHONPATH", str(previous))
        single = Single(home, mariadb.new_database(), BOXES)
        engine = single.engine()
        started = time.monotonic()
        with single.running() as boxes:
            with Sms(
                single.access, single.ledger, single.devices, seed=seed, run="u", pause_s=0.5
            ) as sms:
                single.go_on(sms, STEP_S)
                monkeypatch.delenv("PYTHONPATH")
                with engine.connect() as connection:
                    assert schema_problem(connection) is not None
                single.run(*BEFORE.split())
                with engine.connect() as connection:
                    assert schema_problem(connection) is None
                single.go_on(sms, STEP_S)  # the release before, on the schema of this one
                assert rooms_of(single, previous) == set(ROOMS) == set(MONITORS)
                for room in ROOMS:
                    single.keeper.stop(room)
                    single.keeper.wait_back(room)
                    single.go_on(sms, STEP_S)
                assert rooms_of(single, previous) == set()
                single.run(*AFTER.split())
                single.go_on(sms, STEP_S)
            engine.dispose()
            assert wrong_boxes(boxes, single.ledger, SETTLE_S) == {}
            single.verdict(sms)
    record(
        "4-upgrade",
        "migration and roll-out from the release before",
        for_s=time.monotonic() - started,
        orders=sms.answered,
        lost=0,
        doubled=0,
        boxes_wrong=0,
        worst_gap_s=sms.worst_gap_s,
        tries_repeated=sms.failed_tries.total(),
        seed=seed,
    )


def rooms_of(single: Single, release: Path) -> set[str]:
    """The rooms whose process was started with the code that lies there."""
    environs = {room: Path(f"/proc/{single.pid(room)}/environ").read_bytes() for room in MONITORS}
    return {room for room, environ in environs.items() if str(release).encode() in environ}
