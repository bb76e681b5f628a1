"""From an SMS order to a set-top box: every service a process, the boxes see only the stream."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from watcher import Watcher

from demo.headend import HeadEnd, make_boxes
from demo.sms import SmsClient
from portcullis.runtime.config import ConfigSource, DatabaseConfig
from portcullis.store.database import engine_for
from tests.system import thief

BOXES = ["1001", "1002"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("database", ["sqlite", "mariadb"])
def test_an_order_reaches_the_box(
    database: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Add, grant, message, withdraw, remove: each is seen by the box and says so in its life."""
    if database == "mariadb":
        server = request.getfixturevalue("mariadb")
        monkeypatch.setenv("PORTCULLIS_DATABASE__URL", server.new_database())
    monkeypatch.setenv("PORTCULLIS_MUX__INPUT", "filler")
    (tmp_path / "state").mkdir()
    make_boxes(tmp_path, BOXES)
    head_end = HeadEnd(tmp_path, Path("unused"))
    with head_end.running():
        subprocess.run(
            head_end.command("keys", "import-devices", str(tmp_path / "state" / "devices.csv"))
            + ["--config", str(head_end.config)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        watcher = Watcher(head_end)
        try:
            asyncio.run(_orders(tmp_path, watcher))
        finally:
            watcher.close()
    checks = ["-q", "-z", "expert", "-o", "mpeg_sect.verify_crc:TRUE"]
    verdict = subprocess.run(
        ["tshark", "-r", str(tmp_path / "out.ts"), *checks],
        check=True,
        capture_output=True,
        text=True,
    )
    assert verdict.stdout.strip() == ""
    words = ["audit", "verify", "--state-dir", str(tmp_path / "state")]
    verified = subprocess.run(
        head_end.command(*words, "--json"), check=False, capture_output=True, text=True
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    said = json.loads(verified.stdout)
    # adddevice, a grant, a message and its removal, removedevice, a product; key events
    assert said["records"] >= 6 + 2
    logs = b"".join(path.read_bytes() for path in tmp_path.rglob("*.log"))
    logs += (tmp_path / "requests.jsonl").read_bytes()
    for box in json.loads((tmp_path / "devices.json").read_text()):
        assert box["device_key"].encode() not in logs
    _a_thief_opens_nothing(tmp_path, ConfigSource.load(head_end.config))
    secret = json.loads((tmp_path / "state" / "client.json").read_text())["client_secret"]
    assert secret.encode() not in logs


def _a_thief_opens_nothing(home: Path, source: ConfigSource) -> None:
    """A dump of the database and every file but keys and boxes: none of it is a key to an EMM."""
    engine = engine_for(source.section("database", DatabaseConfig).full_url())
    sections = thief.first_parts(engine, 3)
    assert sections
    kept = [
        "keys",
        "devices.json",
        "devices.csv",
        "client.json",
        "oauth",
        "portcullis.db",
        "out.ts",
    ]
    stolen = [*thief.dump(engine), *thief.files_of(home, but=kept)]
    tried = thief.candidates(stolen)
    assert len(tried) > 5000
    assert list(thief.opened(engine, sections, tried)) == []
    # The same attempt with what the thief does not have.
    boxes = json.loads((home / "devices.json").read_text())
    [master] = json.loads((home / "state" / "keys" / "master.json").read_text())
    box_keys = {bytes.fromhex(box["device_key"]) for box in boxes}
    assert any("device key" in what for what in thief.opened(engine, sections, box_keys))
    opened = thief.opened(engine, sections, [bytes.fromhex(master["key"])])
    assert "a sealed key, as its master" in list(opened)
    engine.dispose()


async def _orders(home: Path, watcher: Watcher) -> None:
    client = SmsClient(home / "state" / "client.json")
    await client.sign_in()
    numbers = iter(range(100))

    async def order(op: str, **body: Any) -> dict[str, Any]:  # noqa: ANN401 (bodies differ)
        answer = await client.call("POST", f"/{op}", {"transaction_id": f"t{next(numbers)}"} | body)
        assert answer.status_code == 202, answer.text
        said: dict[str, Any] = answer.json()
        return said

    made = await client.call("PUT", "/products/101", {"name": "Basic"})
    assert made.status_code == 201
    await order("adddevice", device_id="1001")
    grant = await order("addentitlement", device_id="1001", product_id=101)
    await asyncio.to_thread(watcher.until, "1001", "101")
    message = await order("generateosm", device_id="1001", text="Grüß Gott", duration_s=0)
    await asyncio.to_thread(watcher.until, "1001", "Grüß Gott")
    await order("removeosm", message_id=message["message_id"])
    await asyncio.to_thread(watcher.until, "1001", "withdrawn")
    life = (await client.call("GET", f"/requests/{grant['request_id']}")).json()
    assert life["status"] == "on_air"
    assert life["accepted_at"] < life["encrypted_at"] < life["on_air_at"]
    await order("removedevice", device_id="1001")
    await asyncio.to_thread(watcher.until, "1001", "removed")
    held = (await client.call("GET", "/devices/1001")).json()
    assert (held["status"], held["entitlements"]) == ("removed", [])
    await client.close()
