"""Python at its start, under libfaketime 0.9.10: `time.sleep` by select.

Python 3.11 sleeps by clock_nanosleep until a monotonic time, which that release answers with
EINVAL where it leaves the monotonic clock alone (libfaketime issue 426).
"""

import select
import time


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = _sleep
