"""Puts CAT, TDT and EMMs into the null packets of a transport stream. No I/O, no clock.

Null slots go to the CAT, then the TDT, then the EMM streams in turn. Nothing else of the input is
moved or changed, but for the continuity counter of a TDT that the input brings after ours.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf

from dvbwire.psi import CAT_PID, TDT_PID, CaDescriptor, Tdt
from dvbwire.ts import (
    NULL_PACKET,
    NULL_PID,
    has_payload,
    packetize_section,
    with_pid_and_counter,
)
from portcullis.mux.cat import CatMerger

CAT_PERIOD_S = 0.1
TDT_PERIOD_S = 1.0
TDT_WATCH_S = 2.0  # how long to see whether the input has a TDT before adding one
TDT_ABSENT_S = 30.0  # EN 300 468 5.1.4.1: a TDT comes at least every 30 s


@dataclass(slots=True)
class InsertionCounts:
    """Packets since the start.

    Attributes:
        packets: of the input.
        nulls: null packets among them.
        cat: slots given to the CAT.
        tdt: slots given to the TDT.
        emm: slots given to EMMs.
        displaced: input packets on a PID of our EMMs, which gave way.
    """

    packets: int = 0
    nulls: int = 0
    cat: int = 0
    tdt: int = 0
    emm: int = 0
    displaced: int = 0


class EmmQueue:
    """EMM packets of one stream that wait for a slot, under its PID and continuity counter.

    When it is full the newest is refused, whole datagrams at a time: what was taken goes on air
    complete and in order, and waits no longer than the queue is deep. The carousel repeats.

    Attributes:
        pid: the EMM PID.
        refused: packets not taken since the start.
    """

    def __init__(self, pid: int, capacity_packets: int) -> None:
        self.pid = pid
        self.refused = 0
        self._capacity = capacity_packets
        self._packets: deque[bytes] = deque()
        self._counter = 0

    def __len__(self) -> int:
        return len(self._packets)

    def offer(self, packets: Sequence[bytes]) -> bool:
        """Take all `packets`, whatever their PID and counter, or none of them."""
        if len(self._packets) + len(packets) > self._capacity:
            self.refused += len(packets)
            return False
        self._packets.extend(packets)
        return True

    def take(self) -> bytes:
        """Return the oldest packet, ready for the air; the queue must not be empty."""
        packet = with_pid_and_counter(self._packets.popleft(), self.pid, self._counter)
        self._counter = (self._counter + 1) % 16
        return packet


class Inserter:
    """One output stream.

    `first_cat_version`: see `CatMerger`.

    Attributes:
        counts: what became of the slots.
        input_has_tdt: whether a TDT of the input was heard in the last 30 s.
    """

    def __init__(self, first_cat_version: int = 0) -> None:
        self.counts = InsertionCounts()
        self.input_has_tdt = False
        self._cat = CatMerger(first_cat_version)
        self._own_pids: frozenset[int] = frozenset()
        self._watched = frozenset((NULL_PID, CAT_PID, TDT_PID))
        self._cat_packets: deque[bytes] = deque()
        self._cat_due_s = -inf
        self._tdt_packet: bytes | None = None
        self._tdt_due_s: float | None = None
        self._tdt_counter = 0
        self._ready: deque[EmmQueue] = deque()

    def announce(self, descriptors: Iterable[CaDescriptor]) -> None:
        """Have the CAT lead to these EMM PIDs."""
        self._cat.announce(descriptors)
        self._cat_due_s = -inf

    def reserve(self, pids: Iterable[int]) -> None:
        """Keep these PIDs for our streams: input packets on them become slots."""
        self._own_pids = frozenset(pids)
        self._watched = self._own_pids | {NULL_PID, CAT_PID, TDT_PID}

    def offer(self, queue: EmmQueue, packets: Sequence[bytes]) -> bool:
        """Queue the packets of one datagram; False if the queue has no room for all of them."""
        was_empty = not queue
        taken = queue.offer(packets)
        if was_empty and queue:
            self._ready.append(queue)
        return taken

    def process(self, packets: Iterable[bytes], time_s: float, utc: datetime) -> list[bytes]:
        """Return as many packets as given, null packets replaced.

        Args:
            packets: the next of the input, whole; few enough that `time_s` holds for all.
            time_s: stream time in seconds, from any origin, never going back.
            utc: the wall clock, for the TDT.
        """
        self._refill(time_s, utc)
        output = []
        watched = self._watched
        for packet in packets:
            pid = (packet[1] & 0x1F) << 8 | packet[2]
            output.append(self._watch(pid, packet, time_s) if pid in watched else packet)
        self.counts.packets += len(output)
        return output

    def _refill(self, time_s: float, utc: datetime) -> None:
        if time_s >= self._cat_due_s and not self._cat_packets:
            self._cat_packets.extend(self._cat.packets())
            self._cat_due_s = _next_due(self._cat_due_s, CAT_PERIOD_S, time_s)
        if self._tdt_due_s is None:
            self._tdt_due_s = time_s + TDT_WATCH_S
        if time_s >= self._tdt_due_s:
            self.input_has_tdt = False
            [self._tdt_packet] = packetize_section(Tdt(utc).to_section(), TDT_PID)
            self._tdt_due_s = _next_due(self._tdt_due_s, TDT_PERIOD_S, time_s)

    def _watch(self, pid: int, packet: bytes, time_s: float) -> bytes:
        """Return what goes out in the place of a packet on one of the PIDs we care about."""
        if pid == NULL_PID:
            self.counts.nulls += 1
        elif pid == TDT_PID:
            self.input_has_tdt = True
            self._tdt_packet = None
            self._tdt_due_s = time_s + TDT_ABSENT_S
            return self._counted_tdt(packet)
        elif pid in self._own_pids:
            self.counts.displaced += 1
        else:
            self._cat.hear(packet)
        return self._fill()

    def _fill(self) -> bytes:
        """Return the packet that needs a slot most, a null packet if none does."""
        if self._cat_packets:
            self.counts.cat += 1
            return self._cat_packets.popleft()
        if self._tdt_packet is not None:
            self.counts.tdt += 1
            packet, self._tdt_packet = self._tdt_packet, None
            return self._counted_tdt(packet)
        if self._ready:
            self.counts.emm += 1
            queue = self._ready.popleft()
            packet = queue.take()
            if queue:
                self._ready.append(queue)
            return packet
        return NULL_PACKET

    def _counted_tdt(self, packet: bytes) -> bytes:
        """Number our TDT and the input's in one row (2.4.3.3: only payload counts)."""
        if has_payload(packet):
            self._tdt_counter = (self._tdt_counter + 1) % 16
        return with_pid_and_counter(packet, TDT_PID, self._tdt_counter)


def _next_due(due_s: float, period_s: float, now_s: float) -> float:
    """Count on without drift; begin anew where that lies in the past."""
    return due_s + period_s if due_s + period_s > now_s else now_s + period_s
