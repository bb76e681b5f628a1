"""The scheduler's jobs on both databases, with a clock wound by hand."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select, text, update

from portcullis.scheduler.leadership import Leadership
from portcullis.store.database import engine_for, writing
from portcullis.store.partitions import first_id
from portcullis.store.rotation import read_chains
from portcullis.store.schema import (
    airings,
    device_work,
    emms,
    entitlements,
    keys,
    leases,
    messages,
    requests,
    transactions,
)
from tests.integration.scheduler_bench import DAY, Bench


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    """A bench of the test's own."""
    engine = engine_for(database_url)
    yield Bench(engine)
    engine.dispose()


def test_a_product_has_its_chain_at_once_and_only_one(bench: Bench) -> None:
    """Epochs 1 to 2 here; live and given to boxes is 1."""
    bench.product()
    bench.jobs.make_chains()
    (chain,) = read_chains(bench.engine)
    assert (chain.live_epoch, chain.seal_epoch, chain.last_epoch) == (1, 1, 2)


def test_only_old_states_on_air_are_sealed_anew(bench: Bench) -> None:
    """Box 2 has left the air; box 3 was sealed a moment ago."""
    bench.product()
    bench.boxes(1, 2)
    with writing(bench.engine) as connection:
        connection.execute(update(emms).where(emms.c.device_id == 2).values(tombstone=1))
    bench.now += 1.1 * DAY
    bench.boxes(3)
    bench.jobs.reseal()
    assert [bench.work(one)["wanted"] for one in (1, 2, 3)] == [2, 1, 1]
    assert (bench.work(1)["cause"], bench.work(1)["priority"]) == ("reseal", 2)
    bench.jobs.reseal()
    assert bench.work(1)["wanted"] == 2


def test_what_is_over_leaves_the_air_as_a_tombstone_of_a_new_revision(bench: Bench) -> None:
    """And an hour after, by the feed, the tombstone goes too."""
    bench.product()
    bench.boxes(1)
    bench.emm(1, 5, ends_at=bench.now + DAY)
    bench.emm(1, 6, ends_at=bench.now + 2 * DAY)
    bench.now += 1.5 * DAY
    before = bench.revision()
    bench.jobs.purge()
    assert bench.on_air() == {(1, 0), (1, 6)}
    with bench.engine.connect() as connection:
        tombstone = connection.execute(select(emms).where(emms.c.tombstone == 1)).one()
    assert tombstone.revision == bench.revision() == before + 1
    bench.now += timedelta(minutes=59)
    bench.jobs.purge()
    assert count(bench.engine, "emms") == 3
    bench.now += timedelta(minutes=2)
    bench.jobs.purge()
    assert count(bench.engine, "emms") == 2


def count(engine: Engine, table: str) -> int:
    """How many rows a table has."""
    with engine.connect() as connection:
        return int(connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one())


def test_a_removed_box_is_told_until_its_keys_open_nothing(bench: Bench) -> None:
    """Box 1 holds epoch 1, box 2 already epoch 2, box 3 has yet to be told."""
    bench.product()
    bench.boxes(1, 3, active=False)
    bench.boxes(2, active=False, held=json.dumps({"7": 2}))
    with writing(bench.engine) as connection:
        connection.execute(
            update(device_work)
            .where(device_work.c.device_id == 3)
            .values(dirty_at=bench.now, due_at=bench.now)
        )
    bench.jobs.purge()
    assert bench.on_air() == {(1, 0), (2, 0), (3, 0)}
    with writing(bench.engine) as connection:
        connection.execute(
            update(keys).where(keys.c.purpose == "product").values(live_epoch=2, seal_epoch=2)
        )
    bench.jobs.purge()
    assert bench.on_air() == {(2, 0), (3, 0)}


def test_rows_long_over_are_deleted_and_the_others_kept(bench: Bench) -> None:
    """A day for entitlements and messages, two years for ids; airings as long as their requests."""
    old, young = bench.now - 800 * DAY, bench.now - 700 * DAY
    with writing(bench.engine) as connection:
        for number, moment in enumerate((old, young), start=1):
            request_id = first_id(moment)[:-1] + str(number)
            connection.execute(
                requests.insert().values(
                    request_id=request_id,
                    client_id="c",
                    kind="adddevice",
                    body="{}",
                    outcome="accepted",
                    received_at=moment,
                )
            )
            connection.execute(
                transactions.insert().values(
                    client_id="c",
                    transaction_id=str(number),
                    request_id=request_id,
                    body_hash=b"x" * 32,
                    accepted_at=moment,
                )
            )
            connection.execute(
                airings.insert().values(device_id=number, message_id=0, wanted=1, sealed_at=moment)
            )
        for number, moment in enumerate((bench.now - 2 * DAY, bench.now - DAY / 2), start=1):
            connection.execute(
                entitlements.insert().values(
                    device_id=number, product_id=7, starts_at=old, ends_at=moment
                )
            )
            connection.execute(
                messages.insert().values(
                    device_id=number,
                    text="t",
                    duration_s=0,
                    position=0,
                    priority=0,
                    starts_at=old,
                    expires_at=moment,
                    wanted=1,
                )
            )
    bench.jobs.purge()
    kept = {
        name: count(bench.engine, name)
        for name in ("transactions", "airings", "entitlements", "messages")
    }
    assert kept == {"transactions": 1, "airings": 2, "entitlements": 1, "messages": 1}
    assert count(bench.engine, "requests") == 2
    with writing(bench.engine) as connection:
        connection.execute(requests.delete().where(requests.c.received_at == old))
    bench.jobs.purge()
    assert count(bench.engine, "airings") == 1


def test_months_of_requests_are_split_off_on_mariadb(mariadb_url: str) -> None:
    """Every month gets its partition before it begins; a purge years later drops none."""
    engine = engine_for(mariadb_url)
    bench = Bench(engine)
    with writing(engine) as connection:
        connection.execute(
            requests.insert().values(
                request_id=first_id(bench.now),
                client_id="c",
                kind="adddevice",
                body="{}",
                outcome="accepted",
                received_at=bench.now,
            )
        )
    bench.jobs.purge()
    bench.jobs.purge()
    names = select(text("PARTITION_NAME")).select_from(text("information_schema.PARTITIONS"))
    mine = text("TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'requests'")
    with engine.connect() as connection:
        found = connection.execute(names.where(mine)).scalars().all()
    assert len(found) == 4
    assert f"p{bench.now:%Y%m}" in found
    assert count(engine, "requests") == 1
    bench.now += 731 * DAY + 32 * DAY
    bench.jobs.purge()
    assert count(engine, "requests") == 1
    engine.dispose()


def test_one_scheduler_leads_and_the_next_takes_over_when_it_lets_go(bench: Bench) -> None:
    """The note with the cursors outlives its holder."""
    with writing(bench.engine) as connection:
        connection.execute(
            update(leases).values(note='{"rekey": {"7:2": 5}}', expires_at=bench.now)
        )
    clock = 100.0
    first = Leadership(bench.engine, "first", lambda: clock)
    second = Leadership(bench.engine, "second", lambda: clock)
    first.renew()
    second.renew()
    assert (first.is_held, second.is_held) == (True, False)
    clock += 10.1
    assert not first.is_held
    first.renew()
    first.release()
    second.renew()
    assert (first.is_held, second.is_held) == (False, True)
    with bench.engine.connect() as connection:
        assert connection.execute(select(leases.c.note)).scalar_one() == '{"rekey": {"7:2": 5}}'


def test_jobs_stop_when_the_lease_is_lost(bench: Bench) -> None:
    """Nothing is written any more."""
    bench.product()
    bench.boxes(1)
    bench.emm(1, 5, ends_at=bench.now)
    bench.leads = False
    bench.now += 40 * DAY
    for job in (bench.jobs.rotation.step, bench.jobs.reseal, bench.jobs.purge):
        job()
    with bench.engine.connect() as connection:
        marked = connection.execute(
            select(func.count()).select_from(device_work).where(device_work.c.wanted > 1)
        ).scalar_one()
    assert marked == 0
    assert bench.on_air() == {(1, 0), (1, 5)}
    assert read_chains(bench.engine)[0].seal_epoch == 1


def test_the_id_of_a_message_that_was_deleted_is_given_to_no_other(bench: Bench) -> None:
    """A box drops a message whose id it has seen."""
    ids = []
    for _ in range(2):
        with writing(bench.engine) as connection:
            made = connection.execute(
                messages.insert().values(
                    device_id=1,
                    text="t",
                    duration_s=0,
                    position=0,
                    priority=0,
                    starts_at=bench.now,
                    expires_at=bench.now,
                    wanted=1,
                )
            )
            ids += made.inserted_primary_key or ()
        bench.now += 2 * DAY
        bench.jobs.purge()
        assert count(bench.engine, "messages") == 0
    assert ids[1] > ids[0]
