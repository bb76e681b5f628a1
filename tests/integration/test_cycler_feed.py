"""The feed: nothing is skipped, whoever commits when."""

import asyncio
import threading
from datetime import UTC, datetime

from cycler_peer import seal
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from portcullis.cycler.carousel import Carousel
from portcullis.cycler.config import DEFAULT_CLASSES
from portcullis.cycler.follower import DatabaseClock, Follower
from portcullis.store.database import engine_for, is_transient, writing
from portcullis.store.feed import FirstAiring, first_aired_times, write_first_airings
from portcullis.store.schema import airings, emms

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
