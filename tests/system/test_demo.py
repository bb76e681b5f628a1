"""The demo as a newcomer runs it: exit status 0 only if every box agrees with the ledger."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.timeout(420)
def test_the_demo_ends_with_every_box_agreeing(tmp_path: Path) -> None:
    """A day of orders reaches 195 boxes over a stream that tshark and ffprobe find sound."""
    (tmp_path / "samples").symlink_to(REPOSITORY / "samples")
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=tmp_path,
        env=environ,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    home = tmp_path / "var" / "demo"
    report = json.loads((home / "report.json").read_text(encoding="utf-8"))
    assert report["orders"]["sent"] == report["orders"]["accepted"] + report["orders"]["refused"]
    assert report["boxes"]["total"] == report["boxes"]["agree"] == 195
    checks = ["-q", "-z", "expert", "-o", "mpeg_sect.verify_crc:TRUE"]
    tshark = ["tshark", "-r", str(home / "out.ts"), *checks]
    verdict = subprocess.run(tshark, check=True, capture_output=True, text=True)
    assert verdict.stdout.strip() == ""
    ffprobe = ["ffprobe", "-v", "error", "-show_entries", "program=program_id", "-of", "csv=p=0"]
    seen = subprocess.run(
        [*ffprobe, str(home / "out.ts")], check=True, capture_output=True, text=True
    )
    assert seen.stderr == ""
    assert {line.strip(",") for line in seen.stdout.split()} >= {"1", "2", "3"}
