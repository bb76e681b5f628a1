"""Every room as a process: it stops in time and says how it is, whatever it needs hangs or goes."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from evidence_log import verify
from house import House, Room, held, wait_until
from sqlalchemy import select

from portcullis.store.claims import all_claims, claims_of
from portcullis.store.database import database_now, engine_for
from portcullis.store.readings import read
from portcullis.store.schema import device_work, leases

if TYPE_CHECKING:
    from conftest import MariaDb

pytestmark = pytest.mark.timeout(400)
ROOMS = ("encryptor", "mux", "gateway", "emmg", "scheduler", "cycler", "auditor")


@pytest.fixture
def house(tmp_path: Path, mariadb_url: str) -> Iterator[House]:
    """A house on MariaDB."""
    house = House(tmp_path, mariadb_url)
    yield house
    house.close()


@pytest.fixture
def rooms(house: House) -> dict[str, Room]:
    """One of each, with a box on air."""
    started = dict(zip(ROOMS, house.start_ready(*ROOMS), strict=True))
    house.import_boxes(7)
    with house.sms() as sms:
        added = sms.post("/adddevice", json={"transaction_id": "t1", "device_id": "7"})
        assert added.status_code == 202, added.text
        wait_until(
            lambda: (
                sms.get("/requests", params={"transaction_id": "t1"}).json()["status"] == "on_air"
            ),
            "an order on air",
        )
    return started


def end_all(rooms: dict[str, Room]) -> dict[str, int]:
    """SIGTERM to all at once; the status of each."""
    for room in rooms.values():
        room.process.terminate()
    return {name: room.ended() for name, room in rooms.items()}


def ask_all(rooms: dict[str, Room]) -> dict[str, dict[str, str]]:
    """What fails by room. A second is what each may take; a loaded machine may double it."""

    def ask(room: Room) -> dict[str, str]:
        assert room.fetch("/livez", 2.0)[0] == 200, room.name
        status, body = room.fetch("/readyz", 2.0)
        said = json.loads(body)
        assert status == (503 if said["failed"] else 200)
        failed: dict[str, str] = said["failed"]
        return failed

    with ThreadPoolExecutor(len(rooms)) as pool:
        return dict(zip(rooms, pool.map(ask, rooms.values()), strict=True))


def lacking(what: str, *names: str) -> dict[str, set[str]]:
    """Rooms that are to say that they lack something."""
    return {name: {what} for name in names}


def wait_for_trouble(rooms: dict[str, Room], expected: dict[str, set[str]]) -> None:
    """Wait until each room says what it lacks, and until the others lack nothing."""

    def is_said() -> bool:
        said = ask_all(rooms)
        return all(set(said[name]) >= expected.get(name, set()) for name in rooms)

    wait_until(is_said, f"trouble: {expected}")


def test_a_stop_leaves_nothing_behind(house: House, rooms: dict[str, Room]) -> None:
    """Leases are free at once, the multiplexer has been told, and every record is signed."""
    assert not any(ask_all(rooms).values())
    for name in ("gateway", "cycler", "emmg", "scheduler", "auditor", "mux", "encryptor"):
        assert rooms[name].end() == 0, rooms[name].log.read_text()[-2000:]
    assert "stream closed" in rooms["mux"].log.read_text()
    engine = engine_for(house.url)
    report = verify(engine, house.home)
    assert (report.findings, report.notes) == ([], [])
    with engine.connect() as connection:
        now = database_now(connection)
        expiry = dict(connection.execute(select(leases.c.name, leases.c.expires_at)).all())
    engine.dispose()
    assert set(expiry) == {"scheduler", "stream:0xFFF00001:1"}
    assert all(moment <= now for moment in expiry.values())


def test_a_database_that_hangs_keeps_nobody(
    house: House, rooms: dict[str, Room], mariadb: "MariaDb"
) -> None:
    """All say so and end in time; an order under way is told 503, not cut off."""
    with house.sms() as sms, ThreadPoolExecutor(1) as pool, held(mariadb):
        order = pool.submit(
            sms.post, "/removedevice", json={"transaction_id": "t2", "device_id": "7"}
        )
        wait_for_trouble(
            rooms,
            lacking("database", "gateway", "emmg", "scheduler") | lacking("record", "auditor"),
        )
        assert end_all(rooms) == dict.fromkeys(ROOMS, 0)
        answer = order.result(20)
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert "stream closed" in rooms["mux"].log.read_text()


def test_a_database_that_is_away_keeps_nobody(rooms: dict[str, Room], mariadb: "MariaDb") -> None:
    """All say so and end in time; encryptor and multiplexer have no need of it."""
    mariadb.kill()
    try:
        wait_for_trouble(
            rooms,
            lacking("database", "gateway", "emmg", "scheduler")
            | lacking("feed", "cycler")
            | lacking("record", "auditor"),
        )
        said = ask_all(rooms)
        assert (said["encryptor"], said["mux"]) == ({}, {})
        assert end_all(rooms) == dict.fromkeys(ROOMS, 0)
    finally:
        mariadb.start()


def test_an_encryptor_and_a_multiplexer_that_hang_keep_nobody(
    house: House, rooms: dict[str, Room]
) -> None:
    """With work in hand that waits for them; what was claimed is given back."""
    hanging = [rooms.pop("encryptor"), rooms.pop("mux")]
    with held(*hanging), house.sms() as sms:
        order = {"transaction_id": "t2", "device_id": "7"}
        assert sms.post("/removedevice", json=order).status_code == 202
        assert sms.put("/products/9", json={"name": "nine"}).status_code == 201
        wait_for_trouble(rooms, lacking("encryptor", "emmg", "scheduler"))
        assert ask_all(rooms)["gateway"] == {}
        assert end_all(rooms) == dict.fromkeys(rooms, 0)
    engine = engine_for(house.url)
    with engine.connect() as connection:
        work = connection.execute(select(device_work)).one()
        [found] = read(connection, all_claims())
    claims = claims_of(found)
    engine.dispose()
    assert (claims, work.tries, work.failed_at) == ([], 0, None)
    assert work.wanted > work.sealed
