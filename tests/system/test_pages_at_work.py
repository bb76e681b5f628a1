"""The pages of those who run it, typed on a head-end that runs."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.system.newcomer import REPOSITORY, Desk, blocks

pytestmark = pytest.mark.system  # a minute of commands

RUNBOOKS = sorted((REPOSITORY / "docs/operations/runbooks").glob("*.md"))
SOURCE = REPOSITORY / "src/portcullis"
OF_THE_HOST = ("systemctl", "timedatectl", "df", "du", "vmstat", "mariadb", "openssl", "amtool")
"""What looks at the machine, the database server or Prometheus, not at the head-end."""
ELSEWHERE = ("portcullis db check ", "portcullis requests retry --device ")
"""These refuse here: SQLite is not for production (tests/integration/test_cli_db.py), and the box
has not been given up (tests/integration/test_poison_orders.py)."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A head-end with one box, whose order `sms-2026-000001` is on air."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    up, watch, orders = blocks("README.md", "Try it by hand")
    with desk.terminal(up) as head_end:
        head_end.until("The head-end is up")
        with desk.terminal(watch) as boxes:
            boxes.until("listening on")
            desk.run([orders.replace('"t2"', '"sms-2026-000001"').split("api 'http")[0]])
            boxes.until("1001 shows message 1: 'Welcome!'")
        yield desk


def typed(page: Path) -> list[str]:
    """The lines of a runbook's blocks, with this head-end's configuration and order."""
    found = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    text = re.sub(r"/etc/portcullis/\w+\.toml", "var/portcullis.toml", "".join(found))
    return text.replace("--transaction-id T ", "--transaction-id sms-2026-000001 ").splitlines()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbook_looks_at_what_is_there(desk: Desk, page: Path) -> None:
    """Its commands find what they look for, and what it seeks in a log is what a service writes."""
    for line in typed(page):
        if line.startswith(ELSEWHERE):
            continue
        if line.startswith(("curl ", "portcullis ")):
            desk.run([f"{line}\n"])
        elif line.startswith("journalctl "):
            check_pattern(line)
        else:
            assert line.startswith(OF_THE_HOST), line


def check_pattern(line: str) -> None:
    """What is sought in a log stands in the source; a level in lines as they are written."""
    sought = re.search(r"grep (?:-E |-i )*(?:'([^']+)'|(\S+))$", line)
    if sought is None or '"level"' in line:
        return
    pattern = re.compile(sought[1] or sought[2], re.IGNORECASE if " -i " in line else 0)
    texts = (file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py"))
    assert any(pattern.search(text) for text in texts), line


@pytest.mark.timeout(180)
def test_the_page_of_the_status(desk: Desk) -> None:
    """A screen, a box, an order, and completion for three shells."""
    looked, one, shells = (
        block
        for heading in ("Services, queue, streams", "One box", "Completion in the shell")
        for block in blocks("docs/operations/status.md", heading)
    )
    once, watched = looked.splitlines(keepends=True)
    assert "0xFFF00001" in desk.run([with_config(once)])
    # The screen is for a terminal; what is piped comes line by line with --json.
    with desk.terminal(f"{with_config(watched).split('#')[0]} --json") as lines:
        lines.until('"gateway"', '"gateway"')
    said = desk.run([with_config(one)])
    assert "Welcome!" in said
    assert "on_air_at: 2" in said
    for directory in ("/etc/bash_completion.d", "${fpath[1]}", "~/.config/fish/completions"):
        shells = shells.replace(directory, ".")
    desk.run([shells])
    for file in ("portcullis", "_portcullis", "portcullis.fish"):
        assert "_PORTCULLIS_COMPLETE" in (desk.home / file).read_text()


@pytest.mark.timeout(180)
def test_the_page_of_the_console(desk: Desk) -> None:
    """People come and go."""
    [people] = blocks("docs/console.md", "Sign in")
    said = desk.run([with_config(people)])
    assert "help-desk" in said
    assert '"vera"' not in desk.run(
        ["portcullis console list --json --config var/portcullis.toml\n"]
    )


@pytest.mark.timeout(180)
def test_the_page_of_the_record(desk: Desk) -> None:
    """Verified, exported, verified without the head-end, compared with what the SMS has."""
    [verify] = blocks("docs/evidence.md", "Verify")
    [export] = blocks("docs/evidence.md", "Export")
    [compare] = blocks("docs/evidence.md", "Compare with the SMS")
    key = json.loads(desk.run(["portcullis audit key --state-dir var --json\n"]))
    (desk.home / "key.pem").write_text(key["public_key"])
    (desk.home / "sms.csv").write_text("device_id,product_id\n1001,101\n")
    verify = verify.replace("portcullis.toml", "var/portcullis.toml")
    desk.run([verify.replace("/mnt/worm/heads", "var/anchors")])
    today = datetime.now(UTC)
    export = export.replace("2026-03-01", f"{today - timedelta(days=1):%F}")
    export = export.replace("2026-04-01", f"{today + timedelta(days=1):%F}")
    first, second = export.split("portcullis audit verify-export")
    exported = ""
    while "sms-2026-000001" not in exported:  # what was committed just now is not signed yet
        desk.run([with_config(first), f"portcullis audit verify-export{second}"])
        exported = (desk.home / "march.csv").read_text()
    said = desk.run([with_config(compare)])
    assert json.loads(said[said.index("{") :])["mismatch_rate"] == 0


def with_config(block: str) -> str:
    """Each command on the configuration that `portcullis up` wrote."""
    lines = block.replace("\\\n", " ").splitlines()
    config = " --config var/portcullis.toml"
    return "".join(re.sub(r"^(portcullis [^#]*)", rf"\1{config} ", line) + "\n" for line in lines)
