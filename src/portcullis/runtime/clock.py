"""The wall clock, watched: whether somebody has set it, and how far it is from the database's.

What is compared between processes is compared by the database's clock; this one stamps logs, the
TDT and tokens, and is what the encryptor holds a sequence against.
"""

import time
from collections.abc import Callable

from portcullis.runtime.logging import get_logger
from portcullis.runtime.metrics import counter, gauge

TOLERATED_S = 60.0
"""What nothing is degraded by; the alert begins here, too."""
_STEP_S = 1.0
_READ_WITHIN_S = 0.1  # both clocks: else this process was held up between them
_REMEMBERED_S = 3600.0

STEPS = counter("portcullis_clock_steps_total", "Times that the wall clock was set while we ran")
OFFSET = gauge("portcullis_clock_offset_seconds", "The wall clock less the database's")

log = get_logger("portcullis.runtime.clock")


class WallClock:
    """This machine's wall clock, held against the one that never is set and the database's.

    `wall`: Unix seconds. `steady`: seconds that never go back.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self._steady = wall, steady
        self._offset = self._before = wall() - steady()
        self._stepped_at = steady()
        self._ahead_s = 0.0

    def _read(self) -> float:
        """Wall clock less steady clock; as last read where they cannot be read together."""
        before = self._steady()
        wall = self._wall()
        took_s = self._steady() - before
        return wall - before if took_s < _READ_WITHIN_S else self._offset

    def stepped(self) -> float:
        """By how many seconds it was set since the last call; below 0: back. 0: it was not."""
        was, self._offset = self._offset, self._read()
        step_s = self._offset - was
        if abs(step_s) < _STEP_S:
            return 0.0
        now = self._steady()
        if now - self._stepped_at > _REMEMBERED_S:
            self._before = was
        self._stepped_at = now
        STEPS.inc()
        log.warning("the clock was set", seconds=round(step_s, 3))
        return step_s

    def compare(self, database_s: float) -> None:
        """Note what the database's clock (Unix seconds) says now."""
        self._ahead_s = self._wall() - database_s
        OFFSET.set(self._ahead_s)

    def notice(self) -> str | None:
        """What is wrong with it: apart from the database's, or set in the last hour."""
        if abs(ahead_s := self._ahead_s) > TOLERATED_S:
            which = "ahead of" if ahead_s > 0 else "behind"
            return f"it is {abs(ahead_s):.0f} s {which} the database's"
        offset = self._read()
        is_fresh = abs(offset - self._offset) >= _STEP_S  # set since `stepped` was last asked
        is_recent = self._steady() - self._stepped_at <= _REMEMBERED_S
        moved_s = offset - (self._before if is_recent else self._offset)
        if (is_fresh or is_recent) and abs(moved_s) > TOLERATED_S:
            which = "forward" if moved_s > 0 else "back"
            return f"it was set {which} by {abs(moved_s):.0f} s in the last hour"
        return None
