"""How many packets are due: a constant rate over a clock that comes as an argument. Pure."""

from dvbwire.ts import PACKET_SIZE

_MAX_LAG_S = 1.0


class Pacer:
    """Counts packets against a clock.

    Attributes:
        skipped: packets never sent because the program came back more than a second late.
    """

    def __init__(self, bits_per_s: float, now_s: float) -> None:
        self.skipped = 0
        self._packets_per_s = bits_per_s / 8 / PACKET_SIZE
        self._start_s = now_s
        self._sent = 0

    @property
    def stream_time_s(self) -> float:
        """The time of the next packet since the start, by the count of packets."""
        return self._sent / self._packets_per_s

    def due(self, now_s: float) -> int:
        """Return how many packets to send now, and take them as sent."""
        count = int((now_s - self._start_s) * self._packets_per_s) - self._sent
        most = int(_MAX_LAG_S * self._packets_per_s)
        if count > most:
            self.skipped += count - most
            self._start_s += (count - most) / self._packets_per_s
            count = most
        self._sent += count
        return count
