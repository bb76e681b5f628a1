"""What Prometheus reads: the multiplexer's own counts, looked up when asked."""

from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from portcullis.mux.multiplexer import Multiplexer
from portcullis.mux.server import EmmgDoor


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
        yield _counters(
            "portcullis_mux_simulcrypt",
            "EMMG connections, datagrams and mishaps, by kind",
            "kind",
            dict(self._door.counts),
        )
        yield _gauge(
            "portcullis_mux_connections", "EMMG connections open", len(self._door.sessions)
        )

    def _slots(self) -> Iterator[Metric]:
        counts = self._multiplexer.inserter.counts
        yield CounterMetricFamily(
            "portcullis_mux_input_packets", "Packets of the input", value=counts.packets
        )
        yield CounterMetricFamily(
            "portcullis_mux_input_null_packets", "Null packets of the input", value=counts.nulls
        )
        yield _counters(
            "portcullis_mux_inserted_packets",
            "Packets put into the output",
            "what",
            {"cat": counts.cat, "tdt": counts.tdt, "emm": counts.emm},
        )
        yield CounterMetricFamily(
            "portcullis_mux_displaced_packets",
            "Input packets on a PID of the EMM streams, which gave way",
            value=counts.displaced,
        )
        yield CounterMetricFamily(
            "portcullis_mux_skipped_packets",
            "Packets never sent because the program was late",
            value=self._skipped(),
        )
        yield _counters(
            "portcullis_mux_lost_packets",
            "Packets an output could not send",
            "output",
            {output.url: output.lost for output in self._multiplexer.outputs},
        )
        yield _gauge(
            "portcullis_mux_input_kbit_s", "Rate of the input", self._multiplexer.input_kbit_s
        )
        yield _gauge(
            "portcullis_mux_null_kbit_s",
            "Rate of the input's null packets: room for EMMs",
            self._multiplexer.null_kbit_s,
        )
        yield _gauge(
            "portcullis_mux_input_has_tdt",
            "1 if the input brings a TDT of its own",
            self._multiplexer.inserter.input_has_tdt,
        )

    def _streams(self) -> Iterator[Metric]:
        labels = ["client_id", "data_id", "pid"]
        is_open = GaugeMetricFamily("portcullis_mux_stream_open", "1 while open", labels=labels)
        allocated = GaugeMetricFamily(
            "portcullis_mux_allocated_kbit_s", "Bandwidth allocated", labels=labels
        )
        queued = GaugeMetricFamily(
            "portcullis_mux_queued_packets", "EMM packets waiting for a slot", labels=labels
        )
        refused = CounterMetricFamily(
            "portcullis_mux_refused_packets", "EMM packets the queue had no room for", labels=labels
        )
        for stream in self._multiplexer.table:
            values = [f"0x{stream.client_id:08X}", str(stream.data_id), str(stream.queue.pid)]
            is_open.add_metric(values, stream.is_open)
            allocated.add_metric(values, stream.allocated_kbit_s)
            queued.add_metric(values, len(stream.queue))
            refused.add_metric(values, stream.queue.refused)
        yield from (is_open, allocated, queued, refused)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _counters(name: str, help_text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
