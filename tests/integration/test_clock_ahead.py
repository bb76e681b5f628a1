"""What a database's clock that was ahead for a while would have made of orders."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, update

from portcullis.scheduler.jobs import Jobs
from portcullis.store.database import engine_for, writing
from portcullis.store.schema import device_work, messages
from portcullis.store.to_seal import read_orders
from tests.integration.scheduler_bench import Bench, ChainMaker

HOUR = timedelta(hours=1)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine of the test's own."""
    engine = engine_for(database_url)
    yield engine
    engine.dispose()


def test_nothing_leaves_the_air_by_a_clock_that_is_in_doubt(engine: Engine) -> None:
    """It could not come back: the message has half an hour yet."""
    bench, doubts = Bench(engine), ["it was set forward by 3600 s in the last hour"]
    jobs = Jobs(
        engine,
        ChainMaker(),
        bench.config,
        lambda: True,
        lambda: bench.now,
        doubts=lambda _now: doubts[0] if doubts else None,
    )
    bench.product()
    bench.boxes(1)
    bench.emm(1, 5, ends_at=bench.now + HOUR / 2)
    bench.now += HOUR
    jobs.purge()
    assert bench.on_air() == {(1, 0), (1, 5)}
    doubts.clear()
    jobs.purge()
    assert bench.on_air() == {(1, 0)}


def test_states_sealed_by_a_clock_that_was_ahead_are_sealed_anew(engine: Engine) -> None:
    """They lack what ends before then. A minute ahead is not far enough to be told."""
    bench = Bench(engine)
    bench.product()
    bench.boxes(1, 2)
    for device_id, ahead in ((1, HOUR), (2, timedelta(seconds=50))):
        with writing(engine) as connection:
            connection.execute(
                update(device_work)
                .where(device_work.c.device_id == device_id)
                .values(state_sealed_at=bench.now + ahead)
            )
    bench.jobs.reseal()
    assert [bench.work(one)["wanted"] for one in (1, 2)] == [2, 1]
    assert bench.work(1)["cause"] == "reseal"


def test_a_message_is_sealed_though_a_clock_an_hour_ahead_takes_it_for_over(engine: Engine) -> None:
    """When the clock is right again the message has time left; one long over is left out."""
    now = read_orders(engine, []).now
    ends = {1: now - HOUR, 2: now - 3 * HOUR}
    with writing(engine) as connection:
        for device_id, expires_at in ends.items():
            connection.execute(
                messages.insert().values(
                    device_id=device_id,
                    text="t",
                    duration_s=0,
                    position=0,
                    priority=0,
                    starts_at=now - 4 * HOUR,
                    expires_at=expires_at,
                    wanted=1,
                )
            )
    assert set(read_orders(engine, [1, 2]).messages) == {1}
