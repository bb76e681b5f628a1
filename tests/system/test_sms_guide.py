"""docs/sms-guide.md, command by command, in a network of its own: its ports are the defaults."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
_AT_FIRST = "make setup\n.venv/bin/portcullis up --state-dir var >var-up.log 2>&1 &\n"
_BEFORE = """
ip link set lo up
{up}up=$!
until grep -q "The head-end is up" var-up.log; do kill -0 $up; sleep 0.2; done
"""
_AFTER = """
until call "$api/requests?transaction_id=guide-2" | grep on_air; do sleep 0.2; done
until grep -q 'product_id": *101' var/boxes.jsonl; do sleep 0.2; done
kill %2
kill $up
wait $up
"""


@pytest.mark.timeout(300)
def test_an_sms_is_connected_as_the_guide_says(tmp_path: Path) -> None:
    """From nothing to a box that holds what was ordered; each answer is as the guide says."""
    text = (REPOSITORY / "docs" / "sms-guide.md").read_text()
    found = re.findall(r"^( *)```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    first, *others = [re.sub(f"^{indent}", "", one, flags=re.MULTILINE) for indent, one in found]
    assert first == _AT_FIRST
    script = _BEFORE.format(up=first.removeprefix("make setup\n")) + "".join(others) + _AFTER
    script = script.replace(".venv/bin/", f"{BIN}/").replace(
        "examples/sms_client.py", str(REPOSITORY / "examples" / "sms_client.py")
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, said
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    orders = {one["transaction_id"]: one for one in answers if one.get("status") == "accepted"}
    assert {"guide-1", "guide-2", "guide-3", "guide-5", "guide-6"} <= set(orders), said
    repeated = [one for one in answers if one.get("transaction_id") == "guide-1"]
    assert repeated[0] == repeated[1]
    assert "unknown_product" in [one.get("code") for one in answers]
    assert "device 1001: active" in done.stdout
