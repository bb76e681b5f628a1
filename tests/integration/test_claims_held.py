"""How long an EMMG holds what it has claimed: while it lives, and no longer."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from house import House, wait_until
from sqlalchemy import Engine, select

from portcullis.store.claims import Claim, all_claims, claims_of
from portcullis.store.database import database_now, engine_for
from portcullis.store.readings import read
from portcullis.store.schema import device_work

HOLD = timedelta(seconds=1)

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def engine(mariadb_url: str) -> Iterator[Engine]:
    """An engine of the test's own."""
    engine = engine_for(mariadb_url)
    yield engine
    engine.dispose()


def claims(engine: Engine) -> list[Claim]:
    """Who works on the only device."""
    with engine.connect() as connection:
        [found] = read(connection, all_claims())
        return claims_of(found)


def sealed(engine: Engine) -> int:
    """How many of its orders are sealed."""
    with engine.connect() as connection:
        return connection.execute(select(device_work.c.sealed)).scalar_one()


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
        wait_until(lambda: bool(claims(engine)), "a claim")
        (claimed,) = claims(engine)
        wait_until(lambda: claims(engine)[0].until > claimed.until + HOLD, "the claim held on to")
        assert claims(engine)[0].token == claimed.token
        first.kill()
        with engine.connect() as connection:
            assert claims(engine)[0].until <= database_now(connection) + HOLD
        assert sealed(engine) == 0
        encryptor.go_on()
        second = house.start("emmg", emmg__claim_hold="1s")
        second.wait_ready()
        wait_until(lambda: sealed(engine) == 1, "sealed by another EMMG")
    finally:
        house.close()
