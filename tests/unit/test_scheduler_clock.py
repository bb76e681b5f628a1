"""The scheduler's timetable, when somebody sets the clock."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

from portcullis.scheduler import main as subject


def test_a_clock_that_is_set_is_told_from_one_that_goes() -> None:
    """Forwards and back, by how much, and once."""
    now = {"wall": 1000.0, "steady": 5.0}
    clock = subject.WallClock(lambda: now["wall"], lambda: now["steady"])
    now["wall"] += 10
    now["steady"] += 10
    assert clock.stepped() == 0
    now["wall"] -= 3600
    assert clock.stepped() == -3600
    assert clock.stepped() == 0
    now["wall"] += 7200
    assert clock.stepped() == 7200


def test_jobs_do_not_wait_until_the_clock_is_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their next times lie an hour ahead of a clock set back by an hour; they run at once."""
    monkeypatch.setattr(subject, "_LOOK_AT_CLOCK_S", 0.01)
    steps = iter([0.0, -3600.0])
    monkeypatch.setattr(subject.WallClock, "stepped", lambda _self: next(steps, 0.0))

    async def scenario() -> None:
        ran = asyncio.Event()
        loop = asyncio.get_running_loop()
        timetable = BackgroundScheduler(timezone="UTC")
        ahead = datetime.now(UTC) + timedelta(hours=1)
        timetable.add_job(
            lambda: loop.call_soon_threadsafe(ran.set), "interval", seconds=1, next_run_time=ahead
        )
        timetable.start()
        watching = asyncio.create_task(subject._keep_time(timetable))
        await asyncio.wait_for(ran.wait(), 20)
        watching.cancel()
        timetable.shutdown()

    asyncio.run(scenario())
