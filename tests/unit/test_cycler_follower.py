"""How often the feed is looked at."""

import asyncio
from pathlib import Path

import pytest

from portcullis.cycler.carousel import Carousel
from portcullis.cycler.config import DEFAULT_CLASSES
from portcullis.cycler.follower import DatabaseClock, Follower
from portcullis.store.database import engine_for


class _EnoughSeenError(Exception):
    """Ends the follower."""


def test_the_feed_is_looked_at_more_often_for_a_while_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times; then as often as configured, until the next change."""
    engine = engine_for(f"sqlite:///{tmp_path}/a.db")
    follower = Follower(engine, [Carousel(DEFAULT_CLASSES)], DatabaseClock())
    looks = [True, *[False] * 11, True, False]
    waits: list[float] = []

    async def step() -> bool:
        return looks[len(waits)]

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == len(looks):
            raise _EnoughSeenError

    monkeypatch.setattr(follower, "step", step)
    monkeypatch.setattr(asyncio, "sleep", wait)
    with pytest.raises(_EnoughSeenError):
        asyncio.run(follower.run(3.0))
    engine.dispose()
    assert waits == [1.0] * 10 + [3.0, 3.0, 1.0, 1.0]
