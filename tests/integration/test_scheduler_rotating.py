"""The rotation of product keys on both databases, with a clock wound by hand."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select, update

from portcullis.scheduler.chains import rotate_now
from portcullis.scheduler.jobs import CHUNK
from portcullis.store.database import engine_for, writing
from portcullis.store.rotation import read_chains
from portcullis.store.schema import (
    device_work,
    entitlements,
    leases,
)
from tests.integration.scheduler_bench import DAY, Bench, ChainMaker


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    """A bench of the test's own."""
    engine = engine_for(database_url)
    yield Bench(engine)
    engine.dispose()


def test_a_rotation_prepares_marks_and_switches(bench: Bench) -> None:
    """Each at its time, and each once."""
    bench.product()
    bench.boxes(1, 2)
    bench.rotate()
    assert bench.work(1)["dirty_at"] is None
    bench.now += 27.5 * DAY
    bench.rotate()
    (prepared,) = read_chains(bench.engine)
    assert (prepared.live_epoch, prepared.seal_epoch) == (1, 2)
    bench.rotate(2)
    work = bench.work(1)
    assert (work["cause"], work["priority"], work["wanted"], work["state_wanted"]) == (
        "rekey",
        1,
        2,
        2,
    )
    assert work["due_at"] == work["dirty_at"] == bench.now
    bench.rotate(3)
    assert bench.work(1)["wanted"] == 2
    bench.seal_all()
    bench.air(10)
    bench.rotate(2)
    bench.now += 3 * DAY
    bench.air(13)
    bench.rotate()
    (switched,) = read_chains(bench.engine)
    assert (switched.live_epoch, switched.seal_epoch, switched.switch_at) == (2, 2, None)
    assert switched.live_since == prepared.switch_at
    assert bench.progress().switched_at == bench.now


def test_the_switch_waits_for_every_box_to_be_sealed(bench: Bench) -> None:
    """One that has failed for good is skipped; one that needs no new key is not waited for."""
    bench.product()
    bench.boxes(1, 2, 3, 4, 5)
    bench.boxes(6, active=False)
    bench.now += 27.5 * DAY
    with writing(bench.engine) as connection:
        ends = {"ends_at": bench.now + DAY}
        connection.execute(update(entitlements).where(entitlements.c.device_id == 4).values(ends))
    bench.rotate(3)
    assert (bench.progress().boxes, bench.progress().marked) == (4, 4)
    bench.seal_all(2, 3, 4, 6)
    bench.now += 3 * DAY
    bench.air(100)
    bench.rotate(5)
    assert (bench.progress().sealed, bench.progress().sealed_at) == (1, None)
    with writing(bench.engine) as connection:
        failed = {"failed_at": bench.now}
        connection.execute(update(device_work).where(device_work.c.device_id == 2).values(failed))
    bench.rotate(5)
    progress = bench.progress()
    assert (progress.sealed, progress.skipped, progress.sealed_at) == (1, 1, None)
    bench.seal_all(2, 4, 6)
    bench.rotate(2)
    progress = bench.progress()
    assert (progress.sealed, progress.skipped, progress.sealed_at) == (3, 1, bench.now)
    bench.air(103)
    bench.rotate()
    assert read_chains(bench.engine)[0].live_epoch == 2


def test_the_switch_waits_until_every_stream_has_aired_it_often_enough(bench: Bench) -> None:
    """Counted from when the stream had read it; a stream long gone is not waited for."""
    bench.product()
    bench.boxes(1)
    bench.air(1, "stream:gone")
    bench.now += 27.5 * DAY
    bench.rotate(3)
    bench.seal_all()
    bench.now += 3 * DAY
    bench.rotate(3)  # nothing airs at all
    assert bench.progress().cycles_aired == 0
    bench.air(50, "stream:a", reads=False)
    bench.air(7, "stream:b")
    bench.rotate()
    bench.air(60, "stream:a", reads=False)  # it has not read the feed so far
    bench.air(11, "stream:b")
    bench.rotate()
    bench.air(61, "stream:a")
    bench.rotate()
    bench.air(63.9, "stream:a")
    bench.rotate()
    assert read_chains(bench.engine)[0].live_epoch == 1
    bench.air(64.1, "stream:a")
    bench.rotate()
    assert read_chains(bench.engine)[0].live_epoch == 2


def test_progress_and_the_expected_end_are_told(bench: Bench) -> None:
    """In the table, as `keys list` shows it, and as metrics; none when it is over."""
    bench.product()
    bench.boxes(1, 2)
    bench.air(0)
    bench.now += 27.5 * DAY
    bench.rotate(4)
    (chain,) = read_chains(bench.engine)
    assert bench.progress().ends_at == chain.switch_at
    boxes = "portcullis_scheduler_rekey_boxes"
    labels = {"product": "7", "state": "marked"}
    assert REGISTRY.get_sample_value(boxes, labels) == 2
    assert REGISTRY.get_sample_value(boxes, labels | {"state": "sealed"}) == 0
    bench.now += 3 * DAY
    bench.air(0)
    bench.seal_all()
    bench.rotate(1)
    bench.air(1)
    bench.rotate(1)
    bench.now += timedelta(seconds=6)
    bench.air(2)
    bench.rotate(1)
    progress = bench.progress()
    assert progress.cycles_aired == 1
    assert progress.ends_at is not None
    assert timedelta(minutes=20) <= progress.ends_at - bench.now <= timedelta(minutes=30)
    bench.air(4)
    bench.rotate(2)
    assert REGISTRY.get_sample_value(boxes, labels) is None


def test_boxes_are_told_earlier_where_the_air_is_slow(bench: Bench) -> None:
    """And it is said: the configured lead is shorter than three cycles of a day and a half."""
    bench.product()
    bench.boxes(1)
    bench.now += 25 * DAY
    assert bench.jobs.rotation.shortfall() is None
    name = "stream:slow"
    bench.air(0, name)
    with writing(bench.engine) as connection:
        note = json.dumps({"cycles": 0, "cycle_s": 1.5 * 86_400, "revision": 0})
        connection.execute(update(leases).where(leases.c.name == name).values(note=note))
    bench.rotate()
    bench.jobs.rotation.measure()
    assert "prepare_ahead is 259200 s" in (bench.jobs.rotation.shortfall() or "")
    bench.now += 0.6 * DAY
    bench.rotate()
    (chain,) = read_chains(bench.engine)
    assert chain.seal_epoch == 2
    assert chain.switch_at is not None
    assert chain.switch_at - bench.now > 4.3 * DAY


def test_a_used_up_chain_is_followed_by_a_new_one_and_retires(bench: Bench) -> None:
    """Two keys are on air until the switch."""
    bench.product()
    bench.boxes(1)
    bench.now += 31 * DAY
    bench.rotate()
    bench.switch()
    assert [chain.live_epoch for chain in read_chains(bench.engine)] == [2]
    bench.now += 31 * DAY
    bench.rotate()
    old, new = read_chains(bench.engine)
    assert (old.live_epoch, new.live_epoch, new.first_epoch, new.last_epoch) == (2, None, 3, 4)
    bench.switch()
    (only,) = read_chains(bench.engine)
    assert (only.first_epoch, only.live_epoch) == (3, 3)


def test_a_killed_scheduler_goes_on_marking_and_checking_where_it_was(bench: Bench) -> None:
    """More boxes than one chunk: no box is marked or counted twice, none is left out."""
    bench.product()
    bench.boxes(*range(1, CHUNK + 11))
    bench.now += 27.5 * DAY
    bench.rotate(3)
    assert bench.work(CHUNK)["wanted"] == 2
    assert bench.work(CHUNK + 1)["wanted"] == 1
    bench.jobs = bench.new_jobs()
    bench.rotate(2)
    with bench.engine.connect() as connection:
        wanted = connection.execute(select(device_work.c.wanted).distinct()).scalars().all()
    assert wanted == [2]
    bench.seal_all(CHUNK + 5)
    bench.rotate()
    assert bench.progress().sealed == CHUNK + 4
    bench.jobs = bench.new_jobs()
    bench.seal_all()
    bench.rotate(2)
    assert (bench.progress().sealed, bench.progress().sealed_at) == (CHUNK + 10, bench.now)


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
    bench.rotate(3)
    for device_id, values in states.items():
        work = bench.work(device_id)
        assert (work["wanted"], work["state_wanted"], work["due_at"]) == (2, 2, values["due_at"])
        expected = ("rekey", 1) if device_id == 4 else ("order", 0)
        assert (work["cause"], work["priority"]) == expected


def test_rotate_now_starts_a_chain_and_does_it_once(bench: Bench) -> None:
    """It goes live as soon as every box has had it; a second call meanwhile changes nothing."""
    bench.product()
    bench.boxes(1)
    at = rotate_now(bench.engine, ChainMaker(), 7, 2)
    assert rotate_now(bench.engine, ChainMaker(), 7, 2) == at
    assert [chain.first_epoch for chain in read_chains(bench.engine)] == [1, 3]
    bench.rotate(2)
    assert bench.work(1)["cause"] == "rekey"
    with pytest.raises(LookupError):
        rotate_now(bench.engine, ChainMaker(), 8, 2)
    bench.seal_all()
    bench.air(0)
    bench.now += timedelta(seconds=1)
    bench.rotate(2)
    bench.air(3)
    bench.rotate()
    (only,) = read_chains(bench.engine)
    assert (only.first_epoch, only.live_epoch) == (3, 3)
