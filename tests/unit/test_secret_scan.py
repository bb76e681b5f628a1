"""`make audit` finds a secret that somebody commits."""

import subprocess
import sys
from pathlib import Path

SCAN = Path(__file__).parents[2] / "tools" / "secret_scan.py"


def scan(repository: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the scan there."""
    return subprocess.run(
        [sys.executable, str(SCAN), *words],
        cwd=repository,
        check=False,
        capture_output=True,
        text=True,
    )


def test_a_secret_is_found_and_what_was_accepted_is_not(tmp_path: Path) -> None:
    """By file and line; an accepted one may move, another one in the same file is new."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    file = tmp_path / "settings.py"
    fake = "AKIA" + "IOSFODNN7" + "EXAMPLF"
    file.write_text(f'NAME = "x"\nID = "{fake}"\n')
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    (tmp_path / ".secrets.baseline").write_text("[]")
    found = scan(tmp_path)
    assert found.returncode == 1
    assert "settings.py:2: AWS Access Key" in found.stdout
    scan(tmp_path, "--accept")
    assert fake not in (tmp_path / ".secrets.baseline").read_text()
    file.write_text(f'\n\nID = "{fake}"\n')
    assert scan(tmp_path).returncode == 0
    file.write_text(f'ID = "{fake}"\nOTHER = "{fake[:-1]}G"\n')
    assert scan(tmp_path).returncode == 1
