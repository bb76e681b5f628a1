"""The multiplexer itself: input, inserter, streams and outputs put together; still no sockets."""

from collections.abc import Callable, Sequence
from datetime import datetime

from dvbwire.ts import PACKET_SIZE
from portcullis.mux.inserter import Inserter
from portcullis.mux.outputs import Output
from portcullis.mux.streams import Stream, StreamTable
from portcullis.runtime.logging import get_logger

_KBIT_PER_PACKET = PACKET_SIZE * 8 / 1000

log = get_logger("portcullis.mux")


class Multiplexer:
    """One output stream with everything that goes into it.

    Attributes:
        inserter: what becomes of the slots.
        table: channels and streams.
        outputs: where the stream goes.
        input_kbit_s: rate of the input when last measured.
        null_kbit_s: of which null packets.
    """

    def __init__(
        self,
        inserter: Inserter,
        table: StreamTable,
        outputs: Sequence[Output],
        utc: Callable[[], datetime],
    ) -> None:
        self.inserter = inserter
        self.table = table
        self.outputs = outputs
        self.input_kbit_s = 0.0
        self.null_kbit_s = 0.0
        self._utc = utc
        self._measured = (0.0, 0, 0)
        self._shortage: str | None = None
        inserter.reserve(table.pids)

    def announce(self) -> None:
        """Have the CAT say where the streams of the table are."""
        self.inserter.announce(self.table.descriptors())

    def provide(self, stream: Stream, packets: list[bytes]) -> bool:
        """Queue the packets of one datagram; False if there is no room for it."""
        return self.inserter.offer(stream.queue, packets)

    def pass_on(self, packets: list[bytes], time_s: float) -> None:
        """Send the next packets of the input, null packets replaced, to every output.

        Args:
            packets: of the input.
            time_s: stream time in seconds, from any origin.
        """
        output = self.inserter.process(packets, time_s, self._utc())
        for each in self.outputs:
            each.write(output)

    def measure(self, now_s: float) -> None:
        """Work out the rates since the last call, and say so if EMMs cannot all get on air."""
        counts = self.inserter.counts
        last_s, packets, nulls = self._measured
        self._measured = (now_s, counts.packets, counts.nulls)
        kbit_per_packet_s = _KBIT_PER_PACKET / (now_s - last_s)
        self.input_kbit_s = (counts.packets - packets) * kbit_per_packet_s
        self.null_kbit_s = (counts.nulls - nulls) * kbit_per_packet_s
        shortage = self._find_shortage()
        if shortage != self._shortage:
            self._shortage = shortage
            rates = {
                "input_kbit_s": round(self.input_kbit_s),
                "null_kbit_s": round(self.null_kbit_s),
                "allocated_kbit_s": self.table.allocated_kbit_s,
            }
            if shortage is None:
                log.info("input has room for the EMMs", **rates)
            else:
                log.warning(shortage, **rates)

    def _find_shortage(self) -> str | None:
        if not self.input_kbit_s:
            return "no input"
        if not self.null_kbit_s:
            return "input has no null packets: nothing can be inserted"
        if self.null_kbit_s < self.table.allocated_kbit_s:
            return "input has fewer null packets than bandwidth is allocated"
        return None
