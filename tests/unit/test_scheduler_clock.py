"""The scheduler's timetable, when somebody sets the clock."""

import threading
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler

from portcullis.scheduler.main import _run_at_once


def test_jobs_do_not_wait_until_the_clock_is_where_it_was() -> None:
    """Their next times lie an hour ahead of a clock set back by an hour; they run at once."""
    ran = threading.Event()
    timetable = BackgroundScheduler(timezone="UTC")
    ahead = datetime.now(UTC) + timedelta(hours=1)
    timetable.add_job(ran.set, "interval", seconds=1, next_run_time=ahead)
    timetable.start()
    _run_at_once(timetable, 3600.0)
    assert not ran.wait(0.1)
    _run_at_once(timetable, -3600.0)
    assert ran.wait(20)
    timetable.shutdown()
