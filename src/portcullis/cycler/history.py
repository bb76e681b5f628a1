"""What a stream has sent of what it might, minute by minute. Pure."""

import json
from collections import deque

MINUTES = 60
_MINUTE_S = 60
_KBIT_OF_A_PACKET = 188 * 8 / 1000


class History:
    """Mean rate sent and allocated (kbit/s) of each of the last 60 minutes; the last one grows.

    Kept with the lease, so that the next holder goes on with it.
    """

    def __init__(self) -> None:
        self._rows: deque[tuple[int, int, int]] = deque(maxlen=MINUTES)
        self._minute = -1
        self._began = 0.0
        self._packets = 0

    def note(self, wall: float, packets: int, allocated_kbit_s: int) -> None:
        """Note that `packets` have been sent so far, at `wall` (Unix seconds)."""
        minute = int(wall // _MINUTE_S)
        if minute != self._minute:
            self._minute, self._began, self._packets = minute, wall, packets
            return
        if (seconds := wall - self._began) <= 0:
            return
        sent = round((packets - self._packets) * _KBIT_OF_A_PACKET / seconds)
        if self._rows and self._rows[-1][0] == minute:
            self._rows.pop()
        self._rows.append((minute, sent, allocated_kbit_s))

    def rows(self) -> list[tuple[int, int, int]]:
        """Minute since 1970, kbit/s sent, kbit/s allocated; oldest first."""
        return list(self._rows)

    def take_over(self, note: str) -> None:
        """Go on with what the last holder has left in its note; with nothing if it left none."""
        try:
            rows = [(int(m), int(sent), int(allocated)) for m, sent, allocated in _rows_of(note)]
        except (ValueError, KeyError, TypeError):
            return
        self._rows = deque(rows, maxlen=MINUTES)


def _rows_of(note: str) -> list[list[int]]:
    rows: list[list[int]] = json.loads(note)["history"]
    return rows
