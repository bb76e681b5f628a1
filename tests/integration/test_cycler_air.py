"""From a row of `emms` to the multiplexer, with a real cycler process and real databases."""

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cycler_peer import MuxPeer, free_port, running_cycler, seal
from sqlalchemy import Engine, func, select, update

from dvbwire.simulcrypt import ErrorStatus
from portcullis.cycler.asrun import query
from portcullis.store.database import engine_for, writing
from portcullis.store.schema import airings, emms, feed, leases

if TYPE_CHECKING:
    from conftest import MariaDb

SATURATING = """
[[cycler.stream.class]]
name = "always"
every = "20ms"
"""


def on_air(test: Callable[[MuxPeer], Awaitable[None]]) -> None:
    """Run a test beside a multiplexer."""

    async def go() -> None:
        peer = MuxPeer()
        await peer.start()
        try:
            await test(peer)
        finally:
            peer.stop()
            await asyncio.sleep(0)

    asyncio.run(go())


def seal_all(engine: Engine, devices: range, *, aired: bool = False) -> None:
    """Seal a state for each device, in one transaction."""
    with writing(engine) as connection:
        for device in devices:
            seal(connection, device, aired=aired)


async def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait for what another process does to the database or its own port."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 (in another process)
            await asyncio.sleep(0.05)


def unaired(engine: Engine) -> int:
    """Rows without a first airing, in `emms` and `airings`."""
    with engine.connect() as connection:
        return sum(
            connection.execute(
                select(func.count()).select_from(table).where(table.c.first_aired_at.is_(None))
            ).scalar_one()
            for table in (emms, airings)
        )


def fetch(port: int, path: str) -> tuple[int, str]:
    """Status and body of the monitoring port; 0 while it is not there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except urllib.error.URLError:
        return 0, ""


def test_an_order_goes_before_the_rest_and_the_database_hears_of_it(
    database_url: str, tmp_path: Path
) -> None:
    """With a saturated stream: aired within moments, told in `emms` and `airings`, logged."""
    engine = engine_for(database_url)
    seal_all(engine, range(1, 101), aired=True)

    async def test(peer: MuxPeer) -> None:
        peer.kbit_s = 100
        async with running_cycler(tmp_path / "c", database_url, peer.port, SATURATING):
            await peer.until(lambda: len(peer.datagrams) > 20)
            begun = time.monotonic()
            await asyncio.to_thread(seal_all, engine, range(700, 705))
            await peer.until(lambda: all(peer.heard(device) for device in range(700, 705)))
            assert time.monotonic() - begun < 1.2  # a cycle of the rest takes 1.5 s and more
            await eventually(lambda: unaired(engine) == 0)
        assert peer.requested == [1000]
        assert peer.polite_closes == 1

    on_air(test)
    record = next(query(tmp_path / "c/asrun", 703))
    with engine.connect() as connection:
        told = connection.execute(
            select(emms.c.first_aired_at).where(emms.c.device_id == 703)
        ).scalar_one()
        held = connection.execute(select(leases.c.note)).scalar_one()
    assert abs((record.aired_at - told).total_seconds()) < 0.001
    assert record.stream == "0xFFF00001:1"
    assert record.size == 76
    assert "position" in held
    engine.dispose()


def test_the_bandwidth_allocated_is_obeyed_at_once(tmp_path: Path, mariadb_url: str) -> None:
    """Up, down and to nothing; never more than seven packets a message."""
    engine = engine_for(mariadb_url)
    seal_all(engine, range(1, 201), aired=True)

    async def rate_over(peer: MuxPeer, packets: int) -> float:
        """Packets per second of the next so many, by their times."""
        before = len(peer.packets)
        await peer.until(lambda: len(peer.packets) > before + packets)
        times = [moment for moment, _ in peer.packets[before:]]
        return (len(times) - 1) / (times[-1] - times[0])

    async def test(peer: MuxPeer) -> None:
        peer.kbit_s = 300
        async with running_cycler(tmp_path / "c", mariadb_url, peer.port, SATURATING):
            await peer.until(lambda: len(peer.packets) > 50)
            assert await rate_over(peer, 400) == pytest.approx(199.5, rel=0.15)
            peer.allocate(1200)
            await rate_over(peer, 50)
            assert await rate_over(peer, 1000) == pytest.approx(798, rel=0.15)
            peer.allocate(0)
            await asyncio.sleep(0.5)  # what was on its way
            before = len(peer.packets)
            await asyncio.sleep(0.5)  # nothing happens: there is no event to wait for
            assert len(peer.packets) == before
            peer.allocate(100)
            assert await rate_over(peer, 100) == pytest.approx(66.5, rel=0.2)
        assert peer.most_packets <= 7

    on_air(test)
    engine.dispose()


def test_it_comes_back_after_the_multiplexer_has_dropped_it(
    tmp_path: Path, mariadb_url: str
) -> None:
    """Also after rubbish, and after streams were refused as in use."""
    engine = engine_for(mariadb_url)
    seal_all(engine, range(1, 11), aired=True)

    async def test(peer: MuxPeer) -> None:
        port = free_port()
        peer.refuse_streams_with = ErrorStatus.DATA_ID_IN_USE
        async with running_cycler(tmp_path / "c", mariadb_url, peer.port, SATURATING, port):
            await eventually(
                lambda: (
                    'link{state="in_use",stream="0xFFF00001:1"} 1.0' in fetch(port, "/metrics")[1]
                )
            )
            assert fetch(port, "/readyz")[0] == 503
            peer.refuse_streams_with = None
            await peer.until(lambda: len(peer.datagrams) > 30)
            for injure in (peer.drop, peer.talk_rubbish):
                accepted = peer.accepted
                injure()
                await peer.until(lambda accepted=accepted: peer.accepted > accepted)
                before = len(peer.datagrams)
                await peer.until(lambda before=before: len(peer.datagrams) > before + 30)
            await eventually(lambda: fetch(port, "/readyz")[0] == 200)
            assert 'kind="protocol_violation"' in fetch(port, "/metrics")[1]

    on_air(test)
    engine.dispose()


@pytest.mark.parametrize("provision", ["tcp", "udp"])
@pytest.mark.parametrize("flag", [0, 1])
def test_datagrams_are_what_the_multiplexer_answered(
    tmp_path: Path, mariadb_url: str, provision: str, flag: int
) -> None:
    """Sections or packets, whatever was asked for, over TCP or UDP."""
    engine = engine_for(mariadb_url)
    seal_all(engine, range(1, 4))

    async def test(peer: MuxPeer) -> None:
        peer.section_flag = flag
        lines = f'provision = "{provision}"\nformat = "packets"\n'
        async with running_cycler(tmp_path / "c", mariadb_url, peer.port, lines):
            await peer.until(lambda: all(peer.heard(device) for device in (1, 2, 3)))
        first = peer.datagrams[0][1]
        if flag:
            assert first[:4] == b"\x47\x5f\xff\x10"
            assert len(first) % 188 == 0
        else:
            assert first[:3] == b"\x82\x70\x49"
            assert len(first) == 76
        assert peer.polite_closes == 1

    on_air(test)
    engine.dispose()


def test_a_standby_is_silent_and_takes_over_from_a_killed_cycler(
    tmp_path: Path, mariadb_url: str
) -> None:
    """Within the lease's time; it airs no first airing twice."""
    engine = engine_for(mariadb_url)
    seal_all(engine, range(1, 6))

    async def test(peer: MuxPeer) -> None:
        standby_port = free_port()
        async with running_cycler(tmp_path / "b", mariadb_url, peer.port) as doomed:
            await peer.until(lambda: peer.heard(5) > 0)
            async with running_cycler(
                tmp_path / "s", mariadb_url, peer.port, "data_channel_id = 2", standby_port
            ):
                await eventually(lambda: fetch(standby_port, "/readyz")[0] == 200)
                await eventually(lambda: unaired(engine) == 0)
                await asyncio.to_thread(seal_all, engine, range(90, 91))
                await peer.until(lambda: peer.heard(90) > 0)
                await eventually(lambda: unaired(engine) == 0)
                assert list(query(tmp_path / "s/asrun")) == []
                doomed.kill()
                doomed.wait()
                await asyncio.to_thread(seal_all, engine, range(91, 92))
                await peer.until(lambda: peer.heard(91) > 0)
                await eventually(lambda: unaired(engine) == 0)
                metrics = fetch(standby_port, "/metrics")[1]
            first = 'class_aired_emms_total{class="first",stream="0xFFF00001:1"} 1.0'
            assert first in metrics
            doomed.returncode = 0  # it was killed on purpose

    on_air(test)
    assert [one.device_id for one in query(tmp_path / "s/asrun", 91)][:1] == [91]
    engine.dispose()


def test_a_cycler_without_a_multiplexer_lets_another_air(tmp_path: Path, mariadb_url: str) -> None:
    """Each has its own multiplexer; when that of the holder vanishes, the standby takes over."""
    engine = engine_for(mariadb_url)
    seal_all(engine, range(1, 6), aired=True)

    async def test(peer: MuxPeer) -> None:
        doomed = MuxPeer()
        await doomed.start()
        async with running_cycler(tmp_path / "a", mariadb_url, doomed.port, SATURATING):
            await doomed.until(lambda: len(doomed.datagrams) > 0)
            async with running_cycler(tmp_path / "b", mariadb_url, peer.port, SATURATING):
                await peer.until(lambda: peer.accepted > 0)
                assert peer.datagrams == []
                doomed.stop()
                await peer.until(lambda: len(peer.datagrams) > 20)

    on_air(test)
    engine.dispose()


def test_a_tombstone_ends_it_and_a_new_timeline_reloads(database_url: str, tmp_path: Path) -> None:
    """A restored database may have rows that the cycler never heard of, and lack others."""
    engine = engine_for(database_url)
    seal_all(engine, range(1, 4), aired=True)

    async def test(peer: MuxPeer) -> None:
        async def silent(device: int) -> None:
            """Wait until others have been aired many times and this one has not."""

            def others_only() -> bool:
                last = [data[8:13] for _, data in peer.packets[-40:]]
                return len(last) == 40 and device.to_bytes(5) not in last

            await peer.until(others_only)

        async with running_cycler(tmp_path / "c", database_url, peer.port, SATURATING):
            await peer.until(lambda: all(peer.heard(device) for device in (1, 2, 3)))
            with writing(engine) as connection:
                connection.execute(update(feed).values(revision=feed.c.revision + 1))
                revision = connection.execute(select(feed.c.revision)).scalar_one()
                connection.execute(
                    update(emms).where(emms.c.device_id == 2).values(tombstone=1, revision=revision)
                )
            await silent(2)
            with writing(engine) as connection:
                connection.execute(emms.delete().where(emms.c.device_id == 3))
                connection.execute(update(feed).values(revision=0))
                seal(connection, 4, aired=True)
                connection.execute(update(feed).values(timeline=2, revision=1))
            await peer.until(lambda: peer.heard(4) > 0)
            await silent(3)

    on_air(test)
    engine.dispose()


def test_it_goes_on_while_the_database_is_away(
    mariadb: "MariaDb", mariadb_url: str, tmp_path: Path
) -> None:
    """It airs what it has; once the database is back, news reach the air and the tables."""
    engine = engine_for(mariadb_url)
    seal_all(engine, range(1, 11), aired=True)

    async def test(peer: MuxPeer) -> None:
        async with running_cycler(tmp_path / "c", mariadb_url, peer.port, SATURATING):
            await peer.until(lambda: len(peer.datagrams) > 20)
            mariadb.kill()
            try:
                killed = time.monotonic()
                await peer.until(lambda: peer.datagrams[-1][0] > killed + 4)  # beyond the lease
            finally:
                await asyncio.to_thread(mariadb.start)
            engine.dispose()
            await asyncio.to_thread(seal_all, engine, range(50, 51))
            await peer.until(lambda: peer.heard(50) > 0)
            await eventually(lambda: unaired(engine) == 0)

    on_air(test)
    engine.dispose()


def test_packets_leave_evenly(tmp_path: Path, mariadb_url: str) -> None:
    """At 300 kbit/s most gaps between messages are within 40 ms: no bursts a second apart."""
    engine = engine_for(mariadb_url)
    seal_all(engine, range(1, 101), aired=True)

    async def test(peer: MuxPeer) -> None:
        peer.kbit_s = 300
        async with running_cycler(tmp_path / "c", mariadb_url, peer.port, SATURATING):
            await peer.until(lambda: len(peer.datagrams) > 300)
        times = [moment for moment, _ in peer.datagrams[100:]]
        gaps = sorted(after - before for before, after in pairwise(times))
        assert gaps[len(gaps) * 9 // 10] < 0.04

    on_air(test)
    engine.dispose()
