"""What Prometheus reads: the multiplexer's own counts, looked up when asked."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from portcullis.mux.multiplexer import Multiplexer
from portcullis.mux.server import EmmgDoor
from portcullis.runtime.metrics import counter_family, gauge_family

_BYTES_PER_S = 125  # of 1 kbit/s
_STREAM = ("client_id", "data_id", "pid")

_SIMULCRYPT = counter_family(
    "portcullis_mux_simulcrypt_total", "EMMG connections, datagrams and mishaps, by kind", "kind"
)
_CONNECTIONS = gauge_family("portcullis_mux_connections", "EMMG connections open")
_INPUT = counter_family("portcullis_mux_input_packets_total", "Packets of the input")
_NULLS = counter_family("portcullis_mux_input_null_packets_total", "Null packets of the input")
_INSERTED = counter_family(
    "portcullis_mux_inserted_packets_total", "Packets put into the output", "what"
)
_DISPLACED = counter_family(
    "portcullis_mux_displaced_packets_total",
    "Input packets on a PID of the EMM streams, which gave way",
)
_SKIPPED = counter_family(
    "portcullis_mux_skipped_packets_total", "Packets never sent because the program was late"
)
_LOST = counter_family(
    "portcullis_mux_lost_packets_total", "Packets an output could not send", "output"
)
_INPUT_RATE = gauge_family("portcullis_mux_input_bytes_per_second", "Rate of the input")
_NULL_RATE = gauge_family(
    "portcullis_mux_null_bytes_per_second", "Rate of the input's null packets: room for EMMs"
)
_HAS_TDT = gauge_family("portcullis_mux_input_has_tdt", "1 if the input brings a TDT of its own")
_OPEN = gauge_family("portcullis_mux_stream_open", "1 while open", *_STREAM)
_ALLOCATED = gauge_family(
    "portcullis_mux_allocated_bytes_per_second", "Bandwidth allocated", *_STREAM
)
_QUEUED = gauge_family("portcullis_mux_queued_packets", "EMM packets waiting for a slot", *_STREAM)
_REFUSED = counter_family(
    "portcullis_mux_refused_packets_total", "EMM packets the queue had no room for", *_STREAM
)


class MuxMetrics(Collector):
    """The metrics of one multiplexer."""

    def __init__(
        self, multiplexer: Multiplexer, door: EmmgDoor, skipped: Callable[[], int]
    ) -> None:
        self._multiplexer = multiplexer
        self._door = door
        self._skipped = skipped

    def collect(self) -> Iterator[Metric]:
        """Return every metric with its present value."""
        yield from self._slots()
        yield from self._streams()
        yield _counters(_SIMULCRYPT(), self._door.counts)
        yield _one(_CONNECTIONS(), len(self._door.sessions))

    def _slots(self) -> Iterator[Metric]:
        multiplexer = self._multiplexer
        counts = multiplexer.inserter.counts
        yield _one(_INPUT(), counts.packets)
        yield _one(_NULLS(), counts.nulls)
        yield _counters(_INSERTED(), {"cat": counts.cat, "tdt": counts.tdt, "emm": counts.emm})
        yield _one(_DISPLACED(), counts.displaced)
        yield _one(_SKIPPED(), self._skipped())
        yield _counters(_LOST(), {output.url: output.lost for output in multiplexer.outputs})
        yield _one(_INPUT_RATE(), multiplexer.input_kbit_s * _BYTES_PER_S)
        yield _one(_NULL_RATE(), multiplexer.null_kbit_s * _BYTES_PER_S)
        yield _one(_HAS_TDT(), multiplexer.inserter.input_has_tdt)

    def _streams(self) -> Iterator[Metric]:
        is_open, allocated, queued, refused = _OPEN(), _ALLOCATED(), _QUEUED(), _REFUSED()
        for stream in self._multiplexer.table:
            values = [f"0x{stream.client_id:08X}", str(stream.data_id), str(stream.queue.pid)]
            is_open.add_metric(values, stream.is_open)
            allocated.add_metric(values, stream.allocated_kbit_s * _BYTES_PER_S)
            queued.add_metric(values, len(stream.queue))
            refused.add_metric(values, stream.queue.refused)
        yield from (is_open, allocated, queued, refused)


def _one(family: GaugeMetricFamily | CounterMetricFamily, value: float) -> Metric:
    family.add_metric([], value)
    return family


def _counters(family: CounterMetricFamily, values: Mapping[str, int]) -> Metric:
    for key, value in values.items():
        family.add_metric([key], value)
    return family
