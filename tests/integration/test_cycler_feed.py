"""The feed: nothing is skipped, whoever commits when."""

import asyncio
import threading
from datetime import UTC, datetime

import pytest
from cycler_peer import seal
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import DBAPIError

from portcullis.cycler import follower
from portcullis.cycler.carousel import Carousel
from portcullis.cycler.config import DEFAULT_CLASSES
from portcullis.cycler.follower import DatabaseClock, Follower
from portcullis.store.airable import AirableEmm, EmmKey, FirstAiring
from portcullis.store.database import engine_for, is_transient, writing
from portcullis.store.feed import first_aired_times, next_changes, write_first_airings
from portcullis.store.schema import airings, emms, feed
from tests.unit.cycler_emms import emm_row

WRITERS, ROWS = 4, 40


def test_interleaved_committers_lose_no_revision(database_url: str) -> None:
    """While four commit at once, a follower's carousel ends with every row."""
    engine = engine_for(database_url)
    barrier = threading.Barrier(WRITERS)
    failures: list[DBAPIError] = []

    def write(writer: int) -> None:
        barrier.wait()
        for row in range(ROWS):
            try:
                with writing(engine) as connection:
                    seal(connection, writer * 1000 + row + 1)
            except DBAPIError as error:
                failures.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    carousel = Carousel(DEFAULT_CLASSES)
    follower = Follower(engine, [carousel], DatabaseClock())

    async def follow() -> int:
        await follower.step()
        for thread in threads:
            thread.start()
        changes = 0
        while any(thread.is_alive() for thread in threads):
            changes += await follower.step()
        await follower.step()
        return changes

    changes = asyncio.run(follow())
    for thread in threads:
        thread.join()
    assert not [error for error in failures if not is_transient(error)]
    assert changes > 3
    with engine.connect() as connection:
        written = {(row[0], 0, 1) for row in connection.execute(select(emms.c.device_id))}
    assert set(carousel.arena.keys()) == written
    assert len(written) == WRITERS * ROWS - len(failures)
    engine.dispose()


def test_the_first_airing_is_set_once_and_for_all_orders_covered(database_url: str) -> None:
    """A later report does not move it; a row replaced meanwhile stays unaired; 500 at once work."""
    engine = engine_for(database_url)
    with writing(engine) as connection:
        revisions = [seal(connection, device, number=7) for device in range(1, 501)]
        connection.execute(
            airings.insert(),
            [
                {"device_id": 1, "message_id": 0, "wanted": wanted, "sealed_at": datetime.now(UTC)}
                for wanted in (6, 8)
            ],
        )
    first, later = 1_800_000_000.25, 1_800_000_009.0
    aired = [
        FirstAiring(device, 0, 1, revision + (device == 2), 7, device != 3, first)
        for device, revision in enumerate(revisions, start=1)
    ]
    write_first_airings(engine, aired)
    write_first_airings(engine, [one._replace(aired_at=later, covers=7) for one in aired[:1]])
    with engine.connect() as connection:
        unaired = connection.execute(
            select(emms.c.device_id).where(emms.c.first_aired_at.is_(None))
        ).all()
        orders = connection.execute(
            select(airings.c.device_id, airings.c.wanted)
            .where(airings.c.first_aired_at.is_(None))
            .order_by(airings.c.device_id)
        ).all()
    assert [tuple(row) for row in unaired] == [(2,)]
    assert [tuple(row) for row in orders] == [(1, 8), (3, 7)]
    keys = [(device, 0, 1) for device in range(1, 501)]
    times = first_aired_times(engine, keys)
    assert len(times) == 499
    assert {time for _, _, time in times} == {first}
    engine.dispose()


def put(connection: Connection, emm: AirableEmm) -> None:
    """Write a row of `emms` as it is."""
    times = {
        name: None if (unix := getattr(emm, name)) is None else datetime.fromtimestamp(unix, UTC)
        for name in ("starts_at", "ends_at", "first_aired_at", "ordered_at")
    }
    row = emm._asdict() | times | {"kind": 1, "epoch": 0, "sealed_at": datetime.now(UTC)}
    connection.execute(emms.delete().where(emms.c.device_id == emm.device_id))
    connection.execute(emms.insert().values(row))


def test_a_cycler_that_starts_has_all_there_is(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long aired states, which come by the page, and all the rest; and again when it reloads."""
    monkeypatch.setattr(follower, "_PAGE", 3)
    engine = engine_for(database_url)
    long_ago = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    now = datetime.now(UTC).timestamp()
    rows = [emm_row(device, size=60 + device, first_aired_at=long_ago) for device in range(1, 21)]
    rows += [emm_row(device, size=200, first_aired_at=now) for device in (31, 32)]
    rows += [emm_row(33), emm_row(34, 5, starts_at=now + 900, ends_at=now + 999)]
    rows += [emm_row(35, 6, first_aired_at=long_ago, ends_at=now + 999)]
    gone = emm_row(36, first_aired_at=long_ago)._replace(tombstone=True)
    torn = emm_row(2**40 - 1, first_aired_at=long_ago)
    torn = torn._replace(section=torn.section[:-1])
    with writing(engine) as connection:
        for row in [*rows, gone, torn]:
            put(connection, row)
        connection.execute(update(feed).values(revision=9))
    carousel = Carousel(DEFAULT_CLASSES)
    reader = Follower(engine, [carousel], DatabaseClock())

    def sections() -> dict[EmmKey, bytes]:
        slots = carousel.arena.slots().tolist()
        return {carousel.arena.key(slot): carousel.arena.section(slot) for slot in slots}

    asyncio.run(reader.step())
    assert sections() == {row.key: row.section for row in rows}
    assert reader.counts["malformed"] == 1
    assert [carousel.size(index) for index in range(3)] == [2, 0, 21]
    assert carousel.first_waiting == [(33, 0, 1)]
    changed = emm_row(4, number=8, size=99, first_aired_at=long_ago)
    late = emm_row(50, first_aired_at=long_ago)
    with writing(engine) as connection:
        put(connection, changed)
        put(connection, late)
        connection.execute(emms.delete().where(emms.c.device_id.in_((5, 31))))
        connection.execute(update(feed).values(timeline=feed.c.timeline + 1))
    asyncio.run(reader.step())
    rows = [row for row in rows if row.device_id not in (4, 5, 31)] + [changed, late]
    assert sections() == {row.key: row.section for row in rows}
    assert [carousel.size(index) for index in range(3)] == [1, 0, 21]
    engine.dispose()


def test_many_changes_are_read_piece_by_piece(database_url: str) -> None:
    """Whole revisions each, so that memory does not grow with an outage."""
    engine = engine_for(database_url)
    revisions = [10, 10, 20, 20, 20, 30, 50]
    with writing(engine) as connection:
        for device, revision in enumerate(revisions, start=1):
            put(connection, emm_row(device, revision=revision))
    pieces, after = [], 0
    while after < 60:
        after, rows = next_changes(engine, after, 60, 3)
        pieces.append((after, [row.device_id for row in rows]))
    assert pieces == [(20, [1, 2, 3, 4, 5]), (60, [6, 7])]
    end, rows = next_changes(engine, 17, 20, 1)
    assert (end, len(rows)) == (20, 3)
    engine.dispose()
