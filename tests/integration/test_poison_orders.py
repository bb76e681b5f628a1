"""Orders that cannot be sealed, among many that can: real EMMG, real encryptor, real database."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from house import House, wait_until
from sqlalchemy import Engine, delete, select, text, update

from portcullis.store.database import database_now, engine_for, retried, writing
from portcullis.store.failures import MAX_TRIES
from portcullis.store.schema import device_work, emms, keys, messages

GOOD = range(100, 108)
FOREIGN_KEY, TOO_MANY, REFUSED_BY_DATABASE, KILLS_THE_CALL, DAMAGED_ROW = 13, 14, 15, 16, 17
POISONS = (FOREIGN_KEY, TOO_MANY, REFUSED_BY_DATABASE, KILLS_THE_CALL, DAMAGED_ROW)
POISON_TEXT = "the text over which the connection ends"


@contextmanager
def cutting(path: Path, target: Path) -> Iterator[threading.Event]:
    """A socket before the encryptor's that ends connections over a text, until the event is set."""
    loop = asyncio.new_event_loop()
    harmless = threading.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if POISON_TEXT.encode() in data and not harmless.is_set():
                return
            writer.write(data)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_target, to_target = await asyncio.open_unix_connection(target)
        pumps = [
            asyncio.create_task(pump(reader, to_target)),
            asyncio.create_task(pump(from_target, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task, end in zip(pumps, (writer, to_target), strict=True):
                task.cancel()
                end.transport.abort()

    server = loop.run_until_complete(asyncio.start_unix_server(relay, path))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield harmless
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def sealed_devices(engine: Engine) -> set[int]:
    """Devices with an EMM."""
    with engine.connect() as connection:
        return set(connection.execute(select(emms.c.device_id)).scalars())


def failed(engine: Engine) -> dict[int, str]:
    """Device → why it was given up."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(device_work.c.device_id, device_work.c.last_error).where(
                device_work.c.failed_at.is_not(None)
            )
        )
        return {row.device_id: row.last_error for row in rows}


@retried
def hasten(engine: Engine) -> None:
    """Have what failed seven times, or is about to, be tried now."""
    work = device_work.c
    with writing(engine) as connection:
        connection.execute(
            update(device_work)
            .where(work.device_id.in_(POISONS), work.claim_token.is_(None), work.tries > 0)
            .where(work.failed_at.is_(None))
            .values(due_at=database_now(connection), tries=MAX_TRIES - 1)
        )


@pytest.fixture
def house(tmp_path: Path, mariadb_url: str) -> Iterator[House]:
    """A house on MariaDB."""
    house = House(tmp_path, mariadb_url)
    yield house
    house.close()


@pytest.fixture
def engine(house: House) -> Iterator[Engine]:
    """The test's own look at the tables."""
    engine = engine_for(house.url)
    yield engine
    engine.dispose()


def place_orders(sms: httpx.Client) -> None:
    """Boxes to add, the poisonous ones in the middle, and texts for two of those."""
    lines: list[dict[str, Any]] = [
        {"op": "adddevice", "device_id": str(one)} for one in (*GOOD[:4], *POISONS, *GOOD[4:])
    ]
    text = {"op": "generateosm", "duration_s": 0}
    lines += [text | {"device_id": str(TOO_MANY), "text": f"text {n}"} for n in range(12)]
    lines.append(text | {"device_id": str(KILLS_THE_CALL), "text": POISON_TEXT})
    body = "\n".join(
        json.dumps(line | {"transaction_id": f"t{number}"}) for number, line in enumerate(lines)
    )
    answers = sms.post("/batch", content=body).text.splitlines()
    assert {json.loads(line)["status"] for line in answers} == {"accepted"}, answers


def poison(engine: Engine) -> None:
    """Give a box the key of another, and have the database refuse a box's EMMs."""
    with engine.begin() as connection:
        foreign = connection.execute(
            select(keys.c.sealed_key).where(keys.c.owner == GOOD[0])
        ).scalar_one()
        connection.execute(
            update(keys).where(keys.c.owner == FOREIGN_KEY).values(sealed_key=foreign)
        )
        connection.execute(
            text(
                "CREATE TRIGGER refuse BEFORE INSERT ON emms FOR EACH ROW BEGIN"
                f" IF NEW.device_id = {REFUSED_BY_DATABASE} THEN"
                " SIGNAL SQLSTATE '22001' SET MYSQL_ERRNO = 1406, MESSAGE_TEXT = 'too long';"
                " END IF; END"
            )
        )


def damage(engine: Engine, held: str) -> None:
    """Write what should be JSON over a row of the work."""
    with engine.begin() as connection:
        connection.execute(
            update(device_work).where(device_work.c.device_id == DAMAGED_ROW).values(held=held)
        )


def cure(house: House, engine: Engine) -> None:
    """Put right what was wrong with each."""
    damage(engine, "{}")
    with engine.begin() as connection:
        connection.execute(delete(keys).where(keys.c.owner == FOREIGN_KEY))
        connection.execute(text("DROP TRIGGER refuse"))
        connection.execute(delete(messages).where(messages.c.device_id == TOO_MANY))
    house.import_boxes(FOREIGN_KEY)


@pytest.mark.timeout(400)
def test_poisonous_orders_hold_nobody_up_and_are_retried_by_hand(
    house: House, engine: Engine
) -> None:
    """Refused alone, failing call or statement, taking the encryptor away; a damaged row."""
    encryptor = house.start("encryptor", ENCRYPTOR__MAX_BATCH="10")
    gateway = house.start("gateway")
    encryptor.wait_ready()
    house.import_boxes(*GOOD, *POISONS)
    poison(engine)
    gateway.wait_ready()
    cut = house.home / "cut.sock"
    with house.sms() as sms:
        place_orders(sms)
    damage(engine, '{"101": 1')
    cut = house.home / "cut.sock"
    with cutting(cut, house.home / "encryptor.sock") as harmless:
        emmg = house.start(
            "emmg",
            EMMG__ENCRYPTOR=f"unix:{cut}",
            EMMG__BATCH="12",
            EMMG__WORKERS="1",  # what takes a connection away takes another's call with it
        )
        wait_until(lambda: sealed_devices(engine) >= set(GOOD), "neighbours sealed")
        assert not sealed_devices(engine) & set(POISONS[:3])

        def all_failed() -> bool:
            hasten(engine)
            return set(failed(engine)) == set(POISONS)

        wait_until(all_failed, "poisons given up")
        reasons = failed(engine)
        assert "not_sealed_here" in reasons[FOREIGN_KEY]
        assert reasons[TOO_MANY] == "the encryptor fails on it"
        assert reasons[REFUSED_BY_DATABASE] == "the database refuses it"
        assert reasons[KILLS_THE_CALL] == "the encryptor goes away over it"
        assert reasons[DAMAGED_ROW] == "damaged_row: device_work.held cannot be read"
        wait_until(lambda: emmg.readyz().get("status") == "ok", "an EMMG without trouble")
        listed = house.command("requests", "failed").stdout.splitlines()
        assert {json.loads(line)["device_id"] for line in listed} == set(POISONS)
        life = json.loads(house.command("requests", "show", "--transaction-id", "t4").stdout)
        assert (life["status"], life["device_id"]) == ("failed", str(FOREIGN_KEY))
        assert life["tries"] == MAX_TRIES
        assert "not_sealed_here" in life["error"]
        cure(house, engine)
        harmless.set()
        one = house.command("requests", "retry", "--device", str(FOREIGN_KEY))
        assert json.loads(one.stdout) == {"retried": 1}
        rest = house.command("requests", "retry", "--all-failed")
        assert json.loads(rest.stdout) == {"retried": 4}
        wait_until(lambda: sealed_devices(engine) >= set(POISONS), "poisons sealed")
        again = house.command("requests", "retry", "--device", str(FOREIGN_KEY))
        assert (again.exit_code, again.stderr) == (1, "Error: not given up: 13\n")
        life = json.loads(house.command("requests", "show", "--transaction-id", "t4").stdout)
        assert (life["status"], "error" in life) == ("encrypted", False)
