"""The scheduler's jobs on both databases, with a clock wound by hand."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, func, select, text, update

from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.scheduler.chains import rotate_now
from portcullis.scheduler.config import SchedulerConfig
from portcullis.scheduler.jobs import CHUNK, Jobs
from portcullis.scheduler.leadership import Leadership
from portcullis.store.database import engine_for, writing
from portcullis.store.partitions import first_id
from portcullis.store.rotation import read_chains
from portcullis.store.schema import (
    airings,
    device_work,
    devices,
    emms,
    entitlements,
    feed,
    keys,
    leases,
    messages,
    products,
    requests,
    transactions,
)

DAY = timedelta(days=1)


class ChainMaker(EncryptorClient):
    """An encryptor that makes chains out of thin air."""

    def __init__(self) -> None:
        """No channel."""

    def make_chain(self, product_id: int, first_epoch: int, last_epoch: int) -> pb.SealedKey:
        """A chain whose blob nobody will open."""
        return pb.SealedKey(
            purpose=pb.SealedKey.PRODUCT,
            owner=product_id,
            first_epoch=first_epoch,
            last_epoch=last_epoch,
            master_id="m1",
            blob=b"x" * 44,
        )


class Bench:
    """A database, the jobs, and a clock that moves only when told."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = datetime.now(UTC)
        self.leads = True
        self.config = SchedulerConfig(chain_epochs=2)
        self.jobs = self.new_jobs()
        Leadership(engine, "me").renew()

    def new_jobs(self) -> Jobs:
        """A scheduler that was started again."""
        return Jobs(self.engine, ChainMaker(), self.config, lambda: self.leads, lambda: self.now)

    def product(self, product_id: int = 7) -> None:
        """A product with its first chain."""
        with writing(self.engine) as connection:
            connection.execute(
                products.insert().values(product_id=product_id, name="p", created_at=self.now)
            )
        self.jobs.make_chains()

    def boxes(self, *device_ids: int, active: bool = True, held: str = '{"7": 1}') -> None:
        """Boxes entitled to product 7, their states sealed and on air."""
        with writing(self.engine) as connection:
            connection.execute(
                devices.insert(),
                [
                    {"device_id": one, "active": int(active), "added_at": self.now}
                    for one in device_ids
                ],
            )
            connection.execute(
                entitlements.insert(),
                [
                    {"device_id": one, "product_id": 7, "starts_at": self.now, "ends_at": None}
                    for one in device_ids
                ],
            )
            connection.execute(
                device_work.insert(),
                [
                    {
                        "device_id": one,
                        "wanted": 1,
                        "sealed": 1,
                        "state_wanted": 1,
                        "state_sealed": 1,
                        "cause": "order",
                        "priority": 0,
                        "held": held,
                        "state_sealed_at": self.now,
                    }
                    for one in device_ids
                ],
            )
        for one in device_ids:
            self.emm(one)

    def emm(self, device_id: int, message_id: int = 0, **values: object) -> None:
        """An EMM on air."""
        row: dict[str, object] = {
            "device_id": device_id,
            "message_id": message_id,
            "part": 1,
            "parts": 1,
            "kind": 1,
            "epoch": 0,
            "number": 1,
            "cause": "order",
            "covers": 1,
            "revision": 0,
            "section": b"x",
            "sealed_at": self.now,
        }
        with writing(self.engine) as connection:
            connection.execute(emms.insert().values(row | values))

    def work(self, device_id: int) -> dict[str, object]:
        """The row of a device's work."""
        with self.engine.connect() as connection:
            row = connection.execute(
                select(device_work).where(device_work.c.device_id == device_id)
            ).one()
            return dict(row._mapping)

    def on_air(self) -> set[tuple[int, int]]:
        """(device, message) of what is no tombstone."""
        with self.engine.connect() as connection:
            rows = connection.execute(
                select(emms.c.device_id, emms.c.message_id).where(emms.c.tombstone == 0)
            )
            return {(row[0], row[1]) for row in rows}

    def revision(self) -> int:
        """Where the feed stands."""
        with self.engine.connect() as connection:
            return int(connection.execute(select(feed.c.revision)).scalar_one())

    def seal_all(self) -> None:
        """What an EMMG does with marked boxes, as far as the scheduler can tell."""
        with writing(self.engine) as connection:
            connection.execute(
                update(device_work).values(
                    sealed=device_work.c.wanted,
                    state_sealed=device_work.c.state_wanted,
                    state_sealed_at=self.now,
                    dirty_at=None,
                    due_at=None,
                )
            )


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


def test_a_rotation_prepares_marks_and_switches(bench: Bench) -> None:
    """Each at its time, and each once."""
    bench.product()
    bench.boxes(1, 2)
    bench.jobs.rotate()
    assert bench.work(1)["dirty_at"] is None
    bench.now += 27.5 * DAY
    bench.jobs.rotate()
    (prepared,) = read_chains(bench.engine)
    assert (prepared.live_epoch, prepared.seal_epoch) == (1, 2)
    bench.jobs.rotate()
    work = bench.work(1)
    assert (work["cause"], work["priority"], work["wanted"], work["state_wanted"]) == (
        "rekey",
        1,
        2,
        2,
    )
    assert work["due_at"] == work["dirty_at"] == bench.now
    for _ in range(3):
        bench.jobs.rotate()
    assert bench.work(1)["wanted"] == 2
    bench.now += 3 * DAY
    bench.jobs.rotate()
    (switched,) = read_chains(bench.engine)
    assert (switched.live_epoch, switched.seal_epoch, switched.switch_at) == (2, 2, None)
    assert switched.live_since == prepared.switch_at


def test_a_used_up_chain_is_followed_by_a_new_one_and_retires(bench: Bench) -> None:
    """Two keys are on air until the switch."""
    bench.product()
    bench.boxes(1)
    for _ in range(2):
        bench.now += 31 * DAY
        for _ in range(3):
            bench.jobs.rotate()
        bench.seal_all()
        if len(read_chains(bench.engine)) == 1:
            bench.now += 3 * DAY
            bench.jobs.rotate()
    old, new = read_chains(bench.engine)
    assert (old.live_epoch, new.live_epoch, new.first_epoch, new.last_epoch) == (2, None, 3, 4)
    bench.now += 3 * DAY
    bench.jobs.rotate()
    (only,) = read_chains(bench.engine)
    assert (only.first_epoch, only.live_epoch) == (3, 3)


def test_a_killed_scheduler_goes_on_marking_where_it_was(bench: Bench) -> None:
    """More boxes than one chunk: no box is marked twice, none is left out."""
    bench.product()
    bench.boxes(*range(1, CHUNK + 11))
    bench.now += 27.5 * DAY
    bench.jobs.rotate()
    bench.jobs.rotate()
    assert bench.work(CHUNK)["wanted"] == 2
    assert bench.work(CHUNK + 1)["wanted"] == 1
    bench.jobs = bench.new_jobs()
    bench.jobs.rotate()
    bench.jobs.rotate()
    with bench.engine.connect() as connection:
        wanted = connection.execute(select(device_work.c.wanted).distinct()).scalars().all()
    assert wanted == [2]


def test_a_mark_leaves_more_urgent_work_and_claims_as_they_are(bench: Bench) -> None:
    """Box 1 has a fresh order, 2 is claimed, 3 has failed, 4 waits for a mere re-seal."""
    bench.product()
    bench.boxes(1, 2, 3, 4)
    due = bench.now + 60 * DAY
    states: dict[int, dict[str, object]] = {
        1: {"due_at": due},
        2: {"due_at": due, "claim_token": "t", "claim_wanted": 1},
        3: {"due_at": None, "failed_at": bench.now},
        4: {"due_at": due, "cause": "reseal", "priority": 2},
    }
    with writing(bench.engine) as connection:
        for device_id, values in states.items():
            connection.execute(
                update(device_work)
                .where(device_work.c.device_id == device_id)
                .values({"dirty_at": bench.now} | values)
            )
    bench.now += 27.5 * DAY
    bench.jobs.rotate()
    bench.jobs.rotate()
    for device_id, values in states.items():
        work = bench.work(device_id)
        assert (work["wanted"], work["state_wanted"], work["due_at"]) == (2, 2, values["due_at"])
        expected = ("rekey", 1) if device_id == 4 else ("order", 0)
        assert (work["cause"], work["priority"]) == expected


def test_rotate_now_starts_a_chain_and_does_it_once(bench: Bench) -> None:
    """A second call in the overlap answers with the same time."""
    bench.product()
    bench.boxes(1)
    at = rotate_now(bench.engine, ChainMaker(), 7, 2, timedelta(hours=1))
    assert rotate_now(bench.engine, ChainMaker(), 7, 2, timedelta(hours=1)) == at
    assert [chain.first_epoch for chain in read_chains(bench.engine)] == [1, 3]
    bench.jobs.rotate()
    assert bench.work(1)["cause"] == "rekey"
    with pytest.raises(LookupError):
        rotate_now(bench.engine, ChainMaker(), 8, 2, timedelta(hours=1))


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
    """A day for entitlements and messages, two years for requests and what hangs on them."""
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
    assert kept == {"transactions": 1, "airings": 1, "entitlements": 1, "messages": 1}
    if bench.engine.dialect.name == "sqlite":
        assert count(bench.engine, "requests") == 1


def test_months_of_requests_are_split_off_and_dropped_on_mariadb(mariadb_url: str) -> None:
    """Wind the clock over the years: every month gets its partition and loses it again."""
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
    assert count(engine, "requests") == 0
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
    for job in (bench.jobs.rotate, bench.jobs.reseal, bench.jobs.purge):
        job()
    with bench.engine.connect() as connection:
        marked = connection.execute(
            select(func.count()).select_from(device_work).where(device_work.c.wanted > 1)
        ).scalar_one()
    assert marked == 0
    assert bench.on_air() == {(1, 0), (1, 5)}
    assert read_chains(bench.engine)[0].seal_epoch == 1
