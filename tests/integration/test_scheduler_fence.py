"""A scheduler that lost its lease without noticing: it hung between the question and the commit."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from scheduler_bench import DAY, Bench
from sqlalchemy import Engine, delete, func, select, update

from portcullis.scheduler.leadership import LEASE, Leadership
from portcullis.store.database import database_now, engine_for, writing
from portcullis.store.leases import LeaseLostError, fenced, take_lease
from portcullis.store.schema import device_work, keys, leases, products, rotations


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine of the test's own."""
    engine = engine_for(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def bench(engine: Engine) -> Bench:
    """A leader with a product and boxes, an ended message, states that have grown old."""
    bench = Bench(engine)
    bench.product()
    bench.boxes(1, 2)
    bench.emm(1, 5, ends_at=bench.now)
    bench.now += 40 * DAY
    return bench


def fence(bench: Bench) -> Leadership:
    """Put a fence around the jobs; who leads."""
    leadership = Leadership(bench.engine, "me")
    leadership.renew()
    bench.jobs = type(bench.jobs)(
        leadership.fenced(),
        bench.jobs._client,
        bench.config,
        lambda: True,  # what it last knew
        lambda: bench.now,
    )
    return leadership


def lose_lease(engine: Engine) -> None:
    """Another leads."""
    with writing(engine) as connection:
        connection.execute(update(leases).values(expires_at=database_now(connection)))
    taken = take_lease(engine, LEASE, "another", timedelta(seconds=10))
    assert taken is not None
    assert taken.holder == "another"


def everything(engine: Engine) -> dict[str, object]:
    """What the jobs could have changed."""
    with engine.connect() as connection:
        return {
            "marked": connection.execute(select(func.sum(device_work.c.wanted))).scalar_one(),
            "keys": connection.execute(select(keys.c.owner, keys.c.seal_epoch)).all(),
            "rotations": connection.execute(select(rotations.c.seal_epoch)).all(),
        }


JOBS: dict[str, Callable[[Bench], None]] = {
    "chains": lambda bench: bench.jobs.make_chains(),
    "rotate": lambda bench: bench.jobs.rotate(),
    "reseal": lambda bench: bench.jobs.reseal(),
    "purge": lambda bench: bench.jobs.purge(),
}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_commits_nothing_once_another_leads(bench: Bench, job: str) -> None:
    """Each of them, though it still takes itself for the leader; and with the lease it works."""
    fence(bench)
    with writing(bench.engine) as connection:
        connection.execute(products.insert().values(product_id=8, name="q", created_at=bench.now))
    before, on_air, revision = everything(bench.engine), bench.on_air(), bench.revision()
    lose_lease(bench.engine)
    with pytest.raises(LeaseLostError):
        JOBS[job](bench)
    assert everything(bench.engine) == before
    assert (bench.on_air(), bench.revision()) == (on_air, revision)
    with writing(bench.engine) as connection:
        connection.execute(update(leases).values(holder="me"))
    JOBS[job](bench)
    assert (everything(bench.engine), bench.on_air()) != (before, on_air)


def test_a_lease_that_ran_out_or_is_gone_is_no_lease(engine: Engine) -> None:
    """Nobody else need have taken it; what only reads goes on."""
    Leadership(engine, "me").renew()
    mine = fenced(engine, LEASE, "me")
    with writing(mine) as connection:
        now = database_now(connection)
        connection.execute(products.insert().values(product_id=8, name="q", created_at=now))
    with writing(engine) as connection:
        connection.execute(update(leases).values(expires_at=database_now(connection)))
    with pytest.raises(LeaseLostError), writing(mine) as connection:
        connection.execute(delete(products))
    with writing(engine) as connection:
        connection.execute(delete(leases))
    with pytest.raises(LeaseLostError), writing(mine) as connection:
        connection.execute(delete(products))
    with mine.connect() as connection:
        assert connection.execute(select(products.c.product_id)).scalar_one() == 8
