"""The claim protocol and the feed: several EMMGs and writers, interleaved on purpose."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from sqlalchemy import Engine, event, null, select, update

from portcullis.emm import Kind
from portcullis.store.claims import all_claims, claims_of
from portcullis.store.database import database_now, engine_for, utc_now, writing
from portcullis.store.failures import (
    MAX_TRIES,
    failed_devices,
    give_back,
    give_up_or_retry,
    retry_failed,
)
from portcullis.store.queue import is_any_due
from portcullis.store.readings import NOW as READ_NOW
from portcullis.store.readings import read
from portcullis.store.schema import (
    PRIORITIES,
    airings,
    claims,
    device_work,
    emms,
    feed,
)
from portcullis.store.work import (
    Claimed,
    Finished,
    SealedEmm,
    claim,
    claimed,
    finish,
    hold_on,
)

HOLD = timedelta(minutes=1)
OVER = timedelta(seconds=-1)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine of the test's own."""
    engine = engine_for(database_url)
    yield engine
    engine.dispose()


def order(engine: Engine, *device_ids: int) -> None:
    """What the gateway does to device_work for one state order of each device."""
    with writing(engine) as connection:
        now = database_now(connection)
        for device_id in device_ids:
            work = device_work.c
            changed = connection.execute(
                update(device_work)
                .where(work.device_id == device_id)
                .values(wanted=work.wanted + 1, state_wanted=work.wanted + 1)
            )
            if changed.rowcount:
                connection.execute(
                    update(device_work)
                    .where(work.device_id == device_id)
                    .values(due_at=now, dirty_at=now)
                )
            else:
                connection.execute(
                    device_work.insert().values(
                        device_id=device_id,
                        wanted=1,
                        state_wanted=1,
                        cause="order",
                        priority=0,
                        dirty_at=now,
                        due_at=now,
                    )
                )


def sealed(claimed: Claimed, text: bytes = b"x", parts: int = 1) -> Finished:
    """A state as if the encryptor had sealed it."""
    emm = SealedEmm(
        device_id=claimed.device_id,
        message_id=0,
        kind=Kind.STATE,
        epoch=claimed.epoch,
        number=claimed.sequence,
        cause=claimed.cause,
        covers=claimed.wanted,
        sections=[text] * parts,
    )
    return Finished(claimed, [emm], {101: 3})


def rows_of(engine: Engine, device_id: int) -> list[tuple[int, bytes, int]]:
    """Number, section and tombstone of a device's EMMs."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(emms.c.number, emms.c.section, emms.c.tombstone)
            .where(emms.c.device_id == device_id)
            .order_by(emms.c.part)
        )
        return [tuple(row) for row in rows]


def test_two_emmgs_never_hold_the_same_device(engine: Engine) -> None:
    """Claims of many devices by two at once do not overlap and leave nobody out."""
    order(engine, *range(1, 41))
    barrier = Barrier(2)

    def take(token: str) -> list[int]:
        barrier.wait()
        return [c.device_id for _ in range(10) for c in claim(engine, token, 5, HOLD)]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(take, ("a", "b"))
    assert sorted(first + second) == list(range(1, 41))


def queue(engine: Engine) -> list[int]:
    """Devices as they wait, whoever has claimed them."""
    work = device_work.c
    order_ = work.priority, work.due_at, work.state_sealed_at, work.device_id
    with engine.connect() as connection:
        waiting = select(work.device_id).where(work.due_at.is_not(None)).order_by(*order_)
        return list(connection.execute(waiting).scalars())


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_claims_take_the_queue_in_its_order_each_device_once(engine: Engine, limit: int) -> None:
    """Also devices that came due at one moment, and those whose state was never sealed."""
    moments = [datetime(2026, 5, 1, tzinfo=UTC) + timedelta(microseconds=us) for us in (0, 1, 7)]
    order(engine, *range(1, 31))
    work = device_work.c
    with writing(engine) as connection:
        for device_id in range(1, 31):
            connection.execute(
                update(device_work)
                .where(work.device_id == device_id)
                .values(
                    priority=device_id % 4 // 2,
                    due_at=moments[device_id * 7 % 3],
                    state_sealed_at=[None, *moments][device_id * 5 % 4],
                )
            )
    waiting = queue(engine)
    taken = []
    while some := {one.device_id for one in claim(engine, f"{len(taken)}", limit, HOLD)}:
        assert some == set(waiting[len(taken) : len(taken) + limit])
        taken += some
    assert sorted(taken) == list(range(1, 31))


def test_a_claim_goes_on_where_the_last_one_ended(mariadb_url: str) -> None:
    """The server reads what comes behind that, and nothing of what lies before it in the queue."""
    engine = engine_for(mariadb_url)
    order(engine, *range(1, 201))
    pages = []

    def note(_link: object, _cursor: object, statement: str, *_: object) -> None:
        if "AS queue" in statement:
            pages.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    for token in "abcd":
        assert len(claim(engine, token, 20, HOLD)) == 20
    event.remove(engine, "before_cursor_execute", note)
    with engine.connect() as connection:
        connection.exec_driver_sql("FLUSH STATUS")
        connection.exec_driver_sql(pages[-1])
        asked = "SHOW SESSION STATUS LIKE 'Handler_read_next'"
        assert int(connection.exec_driver_sql(asked).one()[1]) == 200 - 3 * 20
    engine.dispose()
    assert len(pages) == 4


def test_what_comes_due_before_that_place_is_not_forgotten(engine: Engine) -> None:
    """It is claimed once the rest of the queue is, or after as long as a claim holds."""
    order(engine, *range(1, 7))

    def came_due_long_ago(device_id: int) -> None:
        order(engine, device_id)
        with writing(engine) as connection:
            long_ago = database_now(connection) - timedelta(hours=1)
            connection.execute(
                update(device_work)
                .where(device_work.c.device_id == device_id)
                .values(due_at=long_ago)
            )

    def ids(token: str, limit: int, hold: timedelta = HOLD) -> list[int]:
        return sorted(one.device_id for one in claim(engine, token, limit, hold))

    assert ids("a", 2) == [1, 2]
    came_due_long_ago(7)
    assert ids("b", 2) == [3, 4]
    assert ids("c", 2, timedelta(microseconds=1)) != [5, 6]  # from the first on
    came_due_long_ago(8)
    rest = {5, 6, 7, 8} - set(claimed_devices(engine))
    assert set(ids("d", 10)) >= rest


def claimed_devices(engine: Engine) -> set[int]:
    """Of all claims that have not ended."""
    with engine.connect() as connection:
        [[now]], found = read(connection, READ_NOW.of(), all_claims())
    return {one for held in claims_of(found) if held.until > now for one in held.device_ids}


def test_a_number_is_at_least_the_databases_clock_and_only_grows(engine: Engine) -> None:
    """A head-end restored from a backup is ahead of all it ever aired."""
    order(engine, 1)
    (one,) = claim(engine, "a", 10, HOLD)
    finish(engine, "a", [sealed(one)])
    order(engine, 1)
    (two,) = claim(engine, "b", 10, HOLD)
    assert two.sequence > one.sequence >= int(datetime.now(UTC).timestamp()) - 5


def test_the_older_claim_cannot_write_under_a_newer_number(engine: Engine) -> None:
    """An EMMG that stalled past its deadline finds its claim gone and writes nothing."""
    order(engine, 1)
    (stalled,) = claim(engine, "stalled", 10, OVER)
    (fresh,) = claim(engine, "fresh", 10, HOLD)
    assert finish(engine, "fresh", [sealed(fresh, b"new")]) == {1}
    assert finish(engine, "stalled", [sealed(stalled, b"old")]) == set()
    assert rows_of(engine, 1) == [(fresh.sequence, b"new", 0)]


def test_what_another_has_taken_over_does_not_hold_up_the_rest_of_a_batch(engine: Engine) -> None:
    """The rest is written once, the other's device by the other alone."""
    order(engine, 1, 2, 3)
    mine = claim(engine, "mine", 10, OVER)
    (taken,) = claim(engine, "another's", 1, HOLD)
    rest = {1, 2, 3} - {taken.device_id}
    assert finish(engine, "mine", [sealed(one, b"mine") for one in reversed(mine)]) == rest
    assert finish(engine, "another's", [sealed(taken, b"other")]) == {taken.device_id}
    assert rows_of(engine, taken.device_id) == [(taken.sequence, b"other", 0)]
    assert [[row[1] for row in rows_of(engine, one)] for one in sorted(rest)] == [[b"mine"]] * 2
    assert claim(engine, "late", 10, HOLD) == []


def test_a_device_of_which_no_state_was_sealed_keeps_its_own(engine: Engine) -> None:
    """Beside one whose state was, in the same batch: an order for a message is all it had."""
    order(engine, 1, 2)
    work = device_work.c
    with writing(engine) as connection:
        message_only = update(device_work).where(work.device_id == 2)
        connection.execute(message_only.values(wanted=2, state_wanted=1, state_sealed=1))
    one, two = claim(engine, "a", 10, HOLD)
    assert (one.seals_state, two.seals_state) == (True, False)
    assert finish(engine, "a", [sealed(one), Finished(two, (), two.held)]) == {1, 2}
    columns = (work.sealed, work.state_sealed, work.state_sealed_at.is_not(None), work.held)
    with engine.connect() as connection:
        rows = connection.execute(select(*columns).order_by(work.device_id)).all()
    assert list(map(tuple, rows)) == [(1, 1, True, '{"101": 3}'), (2, 1, False, "{}")]


def test_an_order_during_the_claim_is_not_lost(engine: Engine) -> None:
    """What came after the claim keeps the device dirty, and is claimed next."""
    order(engine, 1)
    (first,) = claim(engine, "a", 10, HOLD)
    order(engine, 1)
    assert claim(engine, "b", 10, HOLD) == []
    assert finish(engine, "a", [sealed(first)]) == {1}
    (second,) = claim(engine, "b", 10, HOLD)
    assert (second.wanted, second.sequence > first.sequence) == (2, True)
    finish(engine, "b", [sealed(second)])
    assert claim(engine, "c", 10, HOLD) == []


def test_a_dead_emmgs_claim_comes_due_by_itself(engine: Engine) -> None:
    """After the deadline another EMMG takes the device."""
    order(engine, 1)
    claim(engine, "dead", 10, OVER)
    assert [c.device_id for c in claim(engine, "alive", 10, HOLD)] == [1]


def test_an_entry_that_comes_or_goes_while_the_queue_is_looked_at_is_nothing_due(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first entry was seen, later than now, and then no last one; or the last one alone."""
    order(engine, 1)
    with writing(engine) as connection:
        soon_at = database_now(connection) + HOLD
        connection.execute(update(device_work).values(due_at=soon_at))
    soon = select(device_work.c.due_at).scalar_subquery()
    for ends in ((soon, null()), (null(), soon)):
        monkeypatch.setattr(
            "portcullis.store.queue._ENDS", select(utc_now(), *ends * len(PRIORITIES))
        )
        assert not is_any_due(engine, HOLD)


def test_an_idle_emmg_is_told_of_what_nobody_has_claimed(engine: Engine) -> None:
    """Not of what others work on, but of a fresh order beside it, and of a claim that has ended."""
    order(engine, 1, 2)
    assert is_any_due(engine, HOLD)
    claim(engine, "a", 2, HOLD)
    assert not is_any_due(engine, HOLD)
    order(engine, 3)
    assert is_any_due(engine, HOLD)
    claim(engine, "b", 1, OVER)
    assert is_any_due(engine, HOLD)
    claim(engine, "c", 1, HOLD)
    assert not is_any_due(engine, HOLD)


def test_what_was_sealed_under_an_epoch_that_is_over_is_not_written(engine: Engine) -> None:
    """A number was repaired meanwhile: the device is claimed anew, its neighbour is done."""
    order(engine, 1, 2)
    both = claim(engine, "a", 10, HOLD)
    with writing(engine) as connection:
        repaired = update(device_work).where(device_work.c.device_id == 1)
        connection.execute(repaired.values(epoch=1, sequence=0))
    assert finish(engine, "a", list(map(sealed, both))) == {2}
    assert rows_of(engine, 1) == []
    (again,) = claim(engine, "b", 10, HOLD)
    assert (again.device_id, again.epoch) == (1, 1)


def test_a_claim_whose_answer_was_lost_is_found_until_it_comes_due(engine: Engine) -> None:
    """By its token, with its numbers; once it is due it is anybody's, and not taken up."""
    order(engine, 1, 2)
    made = claim(engine, "mine", 1, HOLD)
    assert claimed(engine, "mine") == made
    assert claimed(engine, "another's") == []
    claim(engine, "late", 1, OVER)
    assert claimed(engine, "late") == []


def test_a_claim_is_held_on_to_only_by_whose_it_still_is(engine: Engine) -> None:
    """What is renewed nobody takes; what another has taken is not taken back."""
    order(engine, 1, 2)
    claim(engine, "slow", 1, OVER)
    hold_on(engine, ["slow", "idle"], HOLD)
    assert [c.device_id for c in claim(engine, "other", 10, OVER)] == [2]
    hold_on(engine, ["slow"], OVER)
    assert {c.device_id for c in claim(engine, "other", 10, HOLD)} == {1, 2}
    hold_on(engine, ["slow"], OVER)
    assert claim(engine, "third", 10, HOLD) == []


def test_what_is_held_and_covered_is_remembered(engine: Engine) -> None:
    """The airing that an order waits for is noted with the order's number."""
    order(engine, 1)
    (first,) = claim(engine, "a", 10, HOLD)
    finish(engine, "a", [sealed(first)])
    order(engine, 1)
    (second,) = claim(engine, "a", 10, HOLD)
    assert second.held == {101: 3}
    with engine.connect() as connection:
        assert connection.execute(select(airings.c.wanted)).scalars().all() == [1]


def test_a_rekey_keeps_the_first_airing_and_waits_behind_orders(engine: Engine) -> None:
    """Re-keyed bytes go into the box's slot; only an order makes it unaired again."""
    order(engine, 1, 2)
    for one in claim(engine, "a", 10, HOLD):
        finish(engine, "a", [sealed(one)])
    aired = datetime(2026, 1, 1, tzinfo=UTC)
    with writing(engine) as connection:
        connection.execute(update(emms).values(first_aired_at=aired))
        connection.execute(
            update(device_work)
            .where(device_work.c.device_id == 1)
            .values(
                wanted=2, state_wanted=2, cause="rekey", priority=1, due_at=aired, dirty_at=aired
            )
        )
    order(engine, 2)
    (fresh,) = claim(engine, "a", 1, HOLD)
    (rekey,) = claim(engine, "b", 1, HOLD)
    assert (fresh.device_id, rekey.device_id, rekey.cause) == (2, 1, "rekey")
    finish(engine, "a", [sealed(fresh)])
    finish(engine, "b", [sealed(rekey, b"rekeyed")])
    with engine.connect() as connection:
        found = connection.execute(
            select(emms.c.device_id, emms.c.first_aired_at).order_by(emms.c.device_id)
        ).all()
    assert [tuple(row) for row in found] == [(1, aired), (2, None)]


def test_parts_that_a_smaller_set_no_longer_has_leave_the_carousel(engine: Engine) -> None:
    """A state of one part tombstones part 2 of the larger one before it."""
    order(engine, 1)
    (first,) = claim(engine, "a", 10, HOLD)
    finish(engine, "a", [sealed(first, parts=2)])
    order(engine, 1)
    (second,) = claim(engine, "a", 10, HOLD)
    finish(engine, "a", [sealed(second)])
    assert [tombstone for _, _, tombstone in rows_of(engine, 1)] == [0, 1]


def test_no_revision_is_skipped_by_a_reader_among_writers(engine: Engine) -> None:
    """Whoever sees revision n in the feed sees every row up to n."""
    order(engine, *range(1, 61))
    done = []

    def write(token: str) -> None:
        while claims := claim(engine, token, 3, HOLD):
            finish(engine, token, [sealed(one) for one in claims])

    def read() -> None:
        seen: set[int] = set()
        at = 0
        while len(seen) < 60:
            with engine.connect() as connection:
                now = connection.execute(select(feed.c.revision)).scalar_one()
            with engine.connect() as connection:
                seen |= set(
                    connection.execute(
                        select(emms.c.device_id).where(emms.c.revision > at, emms.c.revision <= now)
                    ).scalars()
                )
            at = now
        done.append(seen)

    with ThreadPoolExecutor(4) as pool:
        reading = pool.submit(read)
        for future in [pool.submit(write, token) for token in ("a", "b", "c")]:
            future.result(60)
        reading.result(60)
    assert done == [set(range(1, 61))]


def test_a_refused_device_is_tried_again_and_then_given_up(engine: Engine) -> None:
    """After MAX_TRIES the device has failed, with the reason, until the next order."""
    order(engine, 1)
    for _ in range(MAX_TRIES):
        assert claim(engine, "a", 10, HOLD)
        give_up_or_retry(engine, "a", [1], "wrong_owner: no", OVER)
    assert claim(engine, "a", 10, HOLD) == []
    with engine.connect() as connection:
        row = connection.execute(select(device_work)).one()
    assert row.failed_at is not None
    assert row.last_error == "wrong_owner: no"
    assert [one["device_id"] for one in failed_devices(engine)] == [1]
    assert retry_failed(engine, [1, 2]) == {1}
    assert failed_devices(engine) == []
    (again,) = claim(engine, "a", 10, HOLD)
    assert (again.device_id, again.tries) == (1, 1)


def test_a_device_given_back_has_not_been_tried(engine: Engine) -> None:
    """An encryptor that is away makes no order poisonous."""
    order(engine, 1)
    for _ in range(MAX_TRIES + 3):
        assert claim(engine, "a", 10, HOLD)
        give_back(engine, "a", [1], "encryptor away", OVER)
    assert claim(engine, "a", 10, HOLD)


def test_work_put_off_by_a_clock_that_has_stepped_back_is_due(engine: Engine) -> None:
    """Neither an order nor the claim of an EMMG that died waits for as long as the step."""
    order(engine, 1, 2)
    claim(engine, "dead", 1, HOLD)
    with writing(engine) as connection:
        now = database_now(connection)
        ahead = now + timedelta(hours=1)
        connection.execute(update(device_work).values(due_at=ahead))
        connection.execute(update(claims).values(claimed_until=ahead))
    assert {done.device_id for done in claim(engine, "b", 10, HOLD)} == {1, 2}
    assert claim(engine, "c", 10, HOLD) == []
