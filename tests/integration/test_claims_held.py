"""How long an EMMG holds what it has claimed: while it lives, and no longer."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from house import House, wait_until
from sqlalchemy import Engine, Row, select

from portcullis.store.database import database_now, engine_for
from portcullis.store.schema import device_work

HOLD = timedelta(seconds=1)
WORK = (device_work.c.claim_token, device_work.c.due_at, device_work.c.sealed)

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def engine(mariadb_url: str) -> Iterator[Engine]:
    """An engine of the test's own."""
    engine = engine_for(mariadb_url)
    yield engine
    engine.dispose()


def work(engine: Engine) -> "Row[tuple[str | None, object, int]]":
    """How the only device stands: claim, when it comes due, orders sealed."""
    with engine.connect() as connection:
        return connection.execute(select(*WORK)).one()


def test_a_batch_that_takes_long_keeps_its_claims_and_a_dead_emmg_does_not(
    tmp_path: Path, mariadb_url: str, engine: Engine
) -> None:
    """Held over and over while the encryptor hangs; due within `claim_hold` of the EMMG's death."""
    house = House(tmp_path, mariadb_url)
    try:
        encryptor, _ = house.start_ready("encryptor", "gateway")
        house.import_boxes(7)
        first = house.start("emmg", emmg__claim_hold="1s")
        first.wait_ready()
        encryptor.hold()
        with house.sms() as sms:
            added = sms.post("/adddevice", json={"transaction_id": "t1", "device_id": "7"})
            assert added.status_code == 202, added.text
        wait_until(lambda: work(engine).claim_token is not None, "a claim")
        claimed = work(engine)
        wait_until(lambda: work(engine).due_at > claimed.due_at + HOLD, "the claim held on to")
        assert work(engine).claim_token == claimed.claim_token
        first.kill()
        with engine.connect() as connection:
            assert work(engine).due_at <= database_now(connection) + HOLD
        assert work(engine).sealed == 0
        encryptor.go_on()
        second = house.start("emmg", emmg__claim_hold="1s")
        second.wait_ready()
        wait_until(lambda: work(engine).sealed == 1, "sealed by another EMMG")
    finally:
        house.close()
