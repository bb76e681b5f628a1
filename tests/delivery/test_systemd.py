"""The units, by systemd's own judgement."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from portcullis.cli.services import ROOMS

UNITS = Path("deploy/systemd")
EXPOSURE = 15
"""Of 100: what `systemd-analyze security` may find at most."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file system with systemd's own units, ours, and the program that they start."""
    root = tmp_path_factory.mktemp("root")
    system = root / "etc/systemd/system"
    shutil.copytree(UNITS, system)
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/systemd").symlink_to("/usr/lib/systemd")
    shutil.copytree("/lib/systemd/system", root / "lib/systemd/system", symlinks=True)
    program = root / "opt/portcullis/bin/portcullis"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return root


@pytest.mark.parametrize("room", ROOMS)
def test_systemd_accepts_the_unit_and_finds_it_shut_in(root: Path, room: str) -> None:
    unit = f"portcullis@{room}.service"
    for command in (
        ["verify", "--man=no"],
        ["security", "--offline=true", f"--threshold={EXPOSURE}"],
    ):
        done = subprocess.run(
            ["systemd-analyze", *command, f"--root={root}", unit],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-600:] + done.stderr
        assert done.stderr == ""


def test_each_service_has_its_user() -> None:
    """And only services have one."""
    lines = (UNITS / "portcullis.sysusers").read_text().splitlines()
    users = {line.split()[1] for line in lines if line.startswith("u ")}
    assert users == {f"portcullis-{room}" for room in ROOMS}
    members = {tuple(line.split()[1:]) for line in lines if line.startswith("m ")}
    assert members == {(user, "portcullis") for user in users}


def test_the_runbooks_name_units_that_exist() -> None:
    """What is typed at night: portcullis@SERVICE, or the target."""
    units = {f"@{room}" for room in ROOMS} | {"@*", ".target"}
    for page in Path("docs/operations").rglob("*.md"):
        asked = r"(?:systemctl \w+|journalctl -u) '?portcullis([^\s`']*)"
        for word in re.findall(asked, page.read_text()):
            assert word in units, f"{page}: {word}"


def test_the_pages_name_configurations_that_exist() -> None:
    """One a service, and those of the commands that the page of the units lays out."""
    file = re.compile(r"/etc/portcullis/(\w+)\.toml")
    laid_out = set(file.findall(Path("docs/operations/systemd.md").read_text()))
    assert {"keys", "operator", "migrate"} <= laid_out
    for page in Path("docs").rglob("*.md"):
        assert set(file.findall(page.read_text())) <= laid_out | set(ROOMS), page
