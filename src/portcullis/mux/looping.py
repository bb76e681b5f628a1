"""A recorded stream played for ever: its rate, and its seam. No I/O.

At the loop point the clock of the programmes jumps back and every continuity counter would break.
The counters are made to go on, and the first PCR after the seam on each PID announces the jump.
"""

from collections.abc import Iterable

from dvbwire.ts import (
    NULL_PACKET,
    NULL_PID,
    PACKET_SIZE,
    continuity_counter_of,
    has_payload,
    payload_unit_start_of,
    pcr_of,
    pid_of,
    with_pid_and_counter,
)

_PCR_HZ = 27_000_000
_PCR_MODULUS = (1 << 33) * 300
_MAX_PCR_STEP = _PCR_HZ  # 2.7.2 allows 100 ms; more than a second is a jump, not a step


class RateMeter:
    """Finds the rate of a multiplex: packets between PCRs of one PID over the time they tell."""

    def __init__(self) -> None:
        self._at = 0
        self._pid: int | None = None
        self._last: tuple[int, int] | None = None
        self._packets = 0
        self._ticks = 0

    def feed(self, packets: Iterable[bytes]) -> None:
        """Take the next packets of the stream."""
        for packet in packets:
            self._at += 1
            pcr = pcr_of(packet)
            if pcr is None or self._pid not in (None, pid_of(packet)):
                continue
            self._pid = pid_of(packet)
            if self._last is not None:
                ticks = (pcr - self._last[1]) % _PCR_MODULUS
                if 0 < ticks <= _MAX_PCR_STEP:
                    self._ticks += ticks
                    self._packets += self._at - self._last[0]
            self._last = (self._at, pcr)

    @property
    def bits_per_s(self) -> float | None:
        """The rate so far, None without two PCRs."""
        if not self._ticks:
            return None
        return self._packets * PACKET_SIZE * 8 * _PCR_HZ / self._ticks


class LoopSeam:
    """Joins the end of a recording to its beginning."""

    def __init__(self) -> None:
        self._counters: dict[int, int] = {}
        self._offsets: dict[int, int] = {}
        self._begun: set[int] = set()
        self._clocked: set[int] = set()
        self._looped = False

    def restart(self) -> None:
        """Say that the next packet is the first of the recording again."""
        self._looped = True
        self._offsets.clear()
        self._begun.clear()
        self._clocked.clear()

    def process(self, packet: bytes) -> bytes:
        """Return the packet as it goes on: renumbered, its first PCR marked, or a null packet.

        After the seam a PID begins with the first packet in which a section or PES packet starts:
        what comes before would be read as the rest of one that the recording's end cut off.
        """
        pid = pid_of(packet)
        if pid == NULL_PID:
            return packet
        if not self._looped:
            if has_payload(packet):
                self._counters[pid] = continuity_counter_of(packet)
            return packet
        has_pcr = pcr_of(packet) is not None
        if has_payload(packet):
            if pid not in self._begun and not payload_unit_start_of(packet) and not has_pcr:
                return NULL_PACKET
            self._begun.add(pid)
            if pid not in self._offsets:
                expected = self._counters.get(pid, continuity_counter_of(packet) - 1) + 1
                self._offsets[pid] = expected - continuity_counter_of(packet)
            counter = (continuity_counter_of(packet) + self._offsets[pid]) % 16
            self._counters[pid] = counter
        else:
            # 2.4.3.3: without payload the counter stands still.
            counter = self._counters.get(pid, continuity_counter_of(packet))
        if has_pcr and pid not in self._clocked:
            self._clocked.add(pid)
            packet = _with_discontinuity(packet)
        return with_pid_and_counter(packet, pid, counter)


def _with_discontinuity(packet: bytes) -> bytes:
    """Set discontinuity_indicator (clause 2.4.3.5); the packet has an adaptation field's flags."""
    return packet[:5] + bytes((packet[5] | 0x80,)) + packet[6:]
