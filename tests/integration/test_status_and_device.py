"""`portcullis status` and `portcullis device` on a running head-end, as the users of the grants."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from granted import users
from house import House, wait_until
from sqlalchemy import select

from portcullis.cli.main import cli
from portcullis.store.database import engine_for
from portcullis.store.schema import requests


@pytest.fixture
def house(tmp_path: Path, mariadb_url: str) -> Iterator[House]:
    """Box 7 with product 101, on air; the gateway has its own database user's rights."""
    house = House(tmp_path, mariadb_url)
    with users(mariadb_url) as urls:
        house.urls = urls  # type: ignore[attr-defined]
        house.start_ready("encryptor", "mux")
        house.import_boxes(7)
        for name in ("gateway", "emmg", "cycler", "scheduler"):
            house.start(name, database__url=urls[name])
        for room in house.rooms:
            room.wait_ready()
        with house.sms() as sms:
            assert sms.put("/products/101", json={"name": "Sport"}).status_code == 201
            order = {"device_id": "7", "product_id": 101}
            assert sms.post("/adddevice", json=_order("add")).status_code == 202
            answer = sms.post("/addentitlement", json={"transaction_id": "grant"} | order)
            assert answer.status_code == 202
            wait_until(lambda: _status(sms, "grant") == "on_air", "the order on air")
        try:
            yield house
        finally:
            house.close()


def _order(transaction_id: str) -> dict[str, str]:
    return {"transaction_id": transaction_id, "device_id": "7"}


def _status(sms: Any, transaction_id: str) -> str:  # noqa: ANN401 (an HTTP client)
    said: dict[str, str] = sms.get("/requests", params={"transaction_id": transaction_id}).json()
    return said["status"]


def _run(house: House, user: str, *words: str, as_json: bool = True) -> str:
    """Run a command as one of the database's users; returns what it printed."""
    environ = {"PORTCULLIS_DATABASE__URL": house.urls[user]}  # type: ignore[attr-defined]
    environ |= {
        f"PORTCULLIS_{room.name.upper()}__MONITOR": f"127.0.0.1:{room.monitor}"
        for room in house.rooms
    }
    options = ["--config", str(house.config), *(["--json"] if as_json else [])]
    done = CliRunner(env=environ | {"COLUMNS": "160"}).invoke(cli, [*words, *options])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_runs_what_a_box_holds_and_its_rehit_are_told(house: House) -> None:
    """Each command under the rights of the user that docs name for it."""
    said = json.loads(_run(house, "operator", "status"))
    assert {name: one["status"] for name, one in said["services"].items()} == {
        "auditor": "away",
        **dict.fromkeys(("gateway", "emmg", "encryptor", "cycler", "scheduler", "mux"), "ok"),
    }

    def airing() -> dict[str, Any]:
        [stream] = json.loads(_run(house, "operator", "status"))["streams"]
        return dict(stream)

    # The cycler notes each second what it airs.
    wait_until(lambda: airing()["classes"][0]["emms"] == 1, "the box noted in the carousel")
    stream = airing()
    assert (stream["name"], stream["is_aired"], stream["link"]) == (
        "0xFFF00001:1",
        True,
        "stream_open",
    )
    assert [(one["name"], one["emms"]) for one in stream["classes"]] == [("always", 1)]
    assert said["queue"]["failed"] == 0
    screen = _run(house, "operator", "status", as_json=False)
    assert all(word in screen for word in ("gateway", "always", "oldest order", "0xFFF00001:1"))

    before = json.loads(_run(house, "operator", "device", "show", "7"))
    assert before["entitlements"][0]["name"] == "Sport"
    assert [(one["kind"], one["status"]) for one in before["requests"]] == [
        ("addentitlement", "on_air"),
        ("adddevice", "on_air"),
    ]
    assert before["next_airings"][0]["class"] == "always"
    shown = _run(house, "operator", "device", "show", "7", as_json=False)
    assert all(word in shown for word in ("Sport", "open", "addentitlement", "class always"))

    again = json.loads(_run(house, "keys", "device", "rehit", "7"))

    def is_on_air() -> bool:
        [latest, *_] = json.loads(_run(house, "operator", "device", "show", "7"))["requests"]
        return bool(latest["request_id"] == again["request_id"] and latest["status"] == "on_air")

    wait_until(is_on_air, "the re-hit on air")
    after = json.loads(_run(house, "operator", "device", "show", "7"))
    assert after["number"] > before["number"]
    assert after["entitlements"] == before["entitlements"]
    assert after["last_aired_at"] > before["last_aired_at"]
    engine = engine_for(house.url)
    with engine.connect() as connection:
        row = connection.execute(select(requests).where(requests.c.kind == "rehit")).one()
    engine.dispose()
    assert json.loads(row.body) == {"device_id": "7", "by": again["by"]}
    assert "@" in again["by"]
    assert row.chain_seq is not None


def test_watching_goes_on_until_it_is_interrupted(tmp_path: Path) -> None:
    """A line each time; a service that dies is away in the next; no tables, no queue."""
    house = House(tmp_path, f"sqlite:///{tmp_path}/none.db")
    try:
        [mux] = house.start_ready("mux")
        environ = {"PORTCULLIS_MUX__MONITOR": f"127.0.0.1:{mux.monitor}", "PATH": "/usr/bin"}
        command = ["status", "--watch", "--every", "0.2", "--json", "--config", str(house.config)]
        with subprocess.Popen(
            [sys.executable, "-m", "portcullis.cli.main", *command],
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        ) as watch:
            assert watch.stdout is not None
            first = json.loads(watch.stdout.readline())
            assert first["services"]["mux"]["status"] == "ok"
            assert (first["database"], first["queue"]) == ("away: OperationalError", None)
            mux.kill()
            for line in watch.stdout:
                if json.loads(line)["services"]["mux"]["status"] == "away":
                    break
            watch.send_signal(signal.SIGINT)
            watch.stdout.read()
            assert watch.wait(30) == 0
    finally:
        house.close()
