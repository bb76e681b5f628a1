"""When a stream takes its turns."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from portcullis.cycler.asrun import AsRunWriter
from portcullis.cycler.config import StreamConfig
from portcullis.cycler.follower import DatabaseClock
from portcullis.cycler.reports import AsRunReports, FirstAiringReports
from portcullis.cycler.stream import Stream, tick_s
from portcullis.store.database import engine_for


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    """One that airs nothing."""
    engine = engine_for(f"sqlite:///{tmp_path}/a.db")
    asrun = AsRunReports(AsRunWriter(tmp_path, 90, 1 << 30), asyncio.Lock())
    reports = FirstAiringReports(engine)
    yield Stream(
        StreamConfig(),
        engine,
        "here",
        DatabaseClock(),
        tick_s=0.004,
        first_airings=reports,
        asrun=asrun,
    )
    engine.dispose()


def test_news_bring_the_next_turn_forward(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a few milliseconds from then, which what comes meanwhile shares."""
    turns: list[float] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(stream, "turn", lambda: turns.append(loop.time()) or 60.0)
        airing = asyncio.create_task(stream.air())
        await asyncio.sleep(0.001)
        told_at = loop.time()
        for _ in range(3):
            stream.wake.set()
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while len(turns) < 2:  # noqa: ASYNC110 (on a timer)
                await asyncio.sleep(0.001)
        assert turns[1] - told_at >= 0.003
        airing.cancel()
        await asyncio.gather(airing, return_exceptions=True)
        assert len(turns) == 2

    asyncio.run(scenario())


def test_a_turn_that_fails_ends_the_airing(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so the process, which is started anew."""

    def fail() -> float:
        raise ZeroDivisionError

    monkeypatch.setattr(stream, "turn", fail)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(stream.air())


def test_streams_that_are_many_take_their_turns_less_often() -> None:
    """Alone, every 2 ms; then as often as they are milliseconds, down to every 6."""
    ticks_ms = [tick_s(streams) * 1000 for streams in (1, 2, 3, 4, 6, 7, 100)]
    assert ticks_ms == [2, 2, 3, 4, 6, 6, 6]
