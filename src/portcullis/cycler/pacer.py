"""A token bucket at transport stream level: 188 bytes a token. Pure."""

from dvbwire.ts import PACKET_SIZE

MAX_PACKETS_PER_MESSAGE = 7
_BURST_S = 0.02


class Pacer:
    """Says how many packets may leave; a section costs the packets it fills.

    After a silence at most 20 ms of the rate, and at least one message, leave at once.
    """

    def __init__(self, kbit_s: int, now: float) -> None:
        self._tokens = 0.0
        self._at = now
        self._packets_per_s = 0.0
        self._depth = 0.0
        self.set_rate(kbit_s, now)

    def set_rate(self, kbit_s: int, now: float) -> None:
        """Obey another bandwidth from `now` on; 0 stops."""
        self._refill(now)
        self._packets_per_s = kbit_s * 1000 / 8 / PACKET_SIZE
        self._depth = MAX_PACKETS_PER_MESSAGE + self._packets_per_s * _BURST_S
        self._tokens = min(self._tokens, self._depth) if kbit_s else 0.0

    def available(self, now: float) -> int:
        """How many packets may leave now: whole messages, where there is one."""
        self._refill(now)
        packets = int(self._tokens)
        rest = packets % MAX_PACKETS_PER_MESSAGE
        return packets - rest if packets > rest else packets

    def spend(self, packets: int) -> None:
        """Take packets as sent."""
        self._tokens -= packets

    def delay(self, packets: int) -> float:
        """Seconds until so many may leave; inf at a rate of 0."""
        missing = packets - self._tokens
        if missing <= 0:
            return 0.0
        return missing / self._packets_per_s if self._packets_per_s else float("inf")

    def _refill(self, now: float) -> None:
        earned = (now - self._at) * self._packets_per_s
        self._tokens = min(self._depth, self._tokens + earned)
        self._at = now
