"""The smoke test that the pipeline runs, against a head-end that it did not start."""

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.against import orders_for
from demo.headend import HeadEnd, make_boxes
from samples.make_day import BOXES

REPOSITORY = Path(__file__).parents[2]
OURS = [str(4_900_000_000 + number) for number in range(4)]


@pytest.fixture(scope="module")
def head_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeadEnd]:
    """A running one with the keys of the test's boxes."""
    home = tmp_path_factory.mktemp("smoke")
    (home / "state").mkdir()
    make_boxes(home, OURS)
    head_end = HeadEnd(home, home / "none.ts")
    # Without an input the multiplexer airs null packets, EMMs and the time: all that boxes need.
    config = head_end.config.read_text()
    head_end.config.write_text(re.sub(r"^input = .*\n", "", config, flags=re.MULTILINE))
    with head_end.running():
        keys = ["keys", "import-devices", str(home / "state/devices.csv")]
        subprocess.run(head_end.command(*keys, "--config", str(head_end.config)), check=True)
        yield head_end


def smoke(head_end: HeadEnd, boxes: Path) -> "subprocess.CompletedProcess[str]":
    client = head_end.home / "state/client.json"
    stream = f"udp://127.0.0.1:{head_end.ts_port}"
    return subprocess.run(
        [*(sys.executable, "-m", "demo.against", "--client", str(client), "--seconds", "3")]
        + ["--boxes", str(boxes), "--stream", stream],
        cwd=REPOSITORY,
        env=os.environ | {"COLUMNS": "120"},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(420)
def test_boxes_agree_and_one_that_does_not_is_told(head_end: HeadEnd) -> None:
    """Twice: the second run meets what the first left, and a box with a wrong key."""
    boxes = head_end.home / "devices.json"
    done = smoke(head_end, boxes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(OURS)} of {len(OURS)} boxes agree" in done.stdout
    made = json.loads(boxes.read_text())
    made[0]["device_key"] = secrets.token_hex(32)
    wrong = head_end.home / "wrong.json"
    wrong.write_text(json.dumps(made))
    done = smoke(head_end, wrong)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{len(OURS) - 1} of {len(OURS)} boxes agree" in done.stdout
    assert OURS[0] in done.stdout


def test_it_asks_only_for_its_own_boxes() -> None:
    """Under transactions of this run, for boxes that it names, and for nothing to be refused."""
    day = [json.loads(line) for line in (REPOSITORY / "samples/day.jsonl").read_text().splitlines()]
    lines = orders_for(day, OURS, "run")
    assert {line["op"] for line in lines} >= {"adddevice", "addentitlement", "generateosm"}
    for line in lines:
        body = line["body"]
        assert body["transaction_id"].startswith("run-day-")
        assert body.get("device_id", OURS[0]) in OURS
        assert line["expect"] in ("accepted", "replay")
    wanted = [one for one in day if one["body"].get("device_id") == BOXES[0]]
    assert len([one for one in lines if one["body"].get("device_id") == OURS[0]]) == len(
        [one for one in wanted if one["expect"] in ("accepted", "replay")]
    )
