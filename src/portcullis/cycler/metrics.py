"""What Prometheus reads: the cycler's own counts, looked up when asked."""

from collections.abc import Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from dvbwire.ts import PACKET_SIZE
from portcullis.cycler.follower import DatabaseClock, Follower
from portcullis.cycler.link import LinkState
from portcullis.cycler.reports import FirstAiringReports
from portcullis.cycler.stream import Stream


class CyclerMetrics(Collector):
    """The metrics of one cycler."""

    def __init__(
        self,
        streams: Sequence[Stream],
        follower: Follower,
        first_airings: FirstAiringReports,
        clock: DatabaseClock,
    ) -> None:
        self._streams = streams
        self._follower = follower
        self._first_airings = first_airings
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Return every metric with its present value."""
        yield from self._air()
        yield from self._classes()
        yield from self._links()
        yield from self._asrun()
        yield GaugeMetricFamily(
            "portcullis_cycler_feed_age_seconds",
            "Time since the feed was last read",
            value=self._clock.now() - self._follower.read_at,
        )
        yield GaugeMetricFamily(
            "portcullis_cycler_first_airings_unwritten",
            "First airings not yet in the database",
            value=len(self._first_airings),
        )
        errors = CounterMetricFamily(
            "portcullis_cycler_database_errors", "Failed statements, by what for", labels=["what"]
        )
        errors.add_metric(["feed"], self._follower.counts["database"])
        errors.add_metric(["first_airings"], self._first_airings.errors)
        errors.add_metric(["leases"], sum(one.counts["lease_errors"] for one in self._streams))
        yield errors
        yield CounterMetricFamily(
            "portcullis_cycler_malformed_emms",
            "EMMs not aired because they are no section",
            value=self._follower.counts["malformed"],
        )

    def _air(self) -> Iterator[Metric]:
        for what, text in (("packets", "Packets aired"), ("emms", "EMMs aired")):
            family = CounterMetricFamily(f"portcullis_cycler_aired_{what}", text, labels=["stream"])
            for stream in self._streams:
                family.add_metric([stream.config.name], stream.aired[what])
            yield family
        octets = CounterMetricFamily(
            "portcullis_cycler_aired_bytes", "Bytes aired, as packets", labels=["stream"]
        )
        for stream in self._streams:
            octets.add_metric([stream.config.name], stream.aired["packets"] * PACKET_SIZE)
        yield octets

    def _classes(self) -> Iterator[Metric]:
        labels = ["stream", "class"]
        size = GaugeMetricFamily("portcullis_cycler_class_size", "EMMs in a class", labels=labels)
        stretch = GaugeMetricFamily(
            "portcullis_cycler_class_stretch", "Actual period over the configured", labels=labels
        )
        aired = CounterMetricFamily(
            "portcullis_cycler_class_aired_emms", "EMMs aired from a class", labels=labels
        )
        first = GaugeMetricFamily(
            "portcullis_cycler_first_waiting", "EMMs awaiting first airing", labels=["stream"]
        )
        now = self._clock.now()
        for stream in self._streams:
            carousel, name = stream.carousel, stream.config.name
            for index, one in enumerate(stream.config.classes):
                size.add_metric([name, one.name], carousel.size(index))
                if stream.holds:
                    stretch.add_metric([name, one.name], carousel.stretch(index, now))
                aired.add_metric([name, one.name], carousel.aired[index])
            aired.add_metric([name, "first"], carousel.first_aired)
            first.add_metric([name], carousel.first_size)
        yield from (size, stretch, aired, first)

    def _links(self) -> Iterator[Metric]:
        asked = GaugeMetricFamily(
            "portcullis_cycler_bandwidth_asked_kbit_s", "Bandwidth asked for", labels=["stream"]
        )
        allocated = GaugeMetricFamily(
            "portcullis_cycler_bandwidth_allocated_kbit_s",
            "Bandwidth allocated, 0 without a stream",
            labels=["stream"],
        )
        state = GaugeMetricFamily(
            "portcullis_cycler_link", "1 for the state the link is in", labels=["stream", "state"]
        )
        holds = GaugeMetricFamily(
            "portcullis_cycler_holds_lease", "1 while this cycler airs", labels=["stream"]
        )
        lost = CounterMetricFamily(
            "portcullis_cycler_lease_lost", "Leases lost to another", labels=["stream"]
        )
        events = CounterMetricFamily(
            "portcullis_cycler_link_events", "Mishaps on the link", labels=["stream", "kind"]
        )
        for stream in self._streams:
            name, link = stream.config.name, stream.link
            is_open = link.state is LinkState.STREAM_OPEN
            asked.add_metric([name], stream.config.bandwidth_kbit_s)
            allocated.add_metric([name], link.allocated_kbit_s if is_open else 0)
            for one in LinkState:
                state.add_metric([name, one.value], link.state is one)
            holds.add_metric([name], stream.holds)
            lost.add_metric([name], stream.counts["lease_lost"])
            for kind, count in link.counts.items():
                events.add_metric([name, kind], count)
        yield from (asked, allocated, state, holds, lost, events)

    def _asrun(self) -> Iterator[Metric]:
        for what, text in (
            ("errors", "Failed writes of the as-run log"),
            ("lost_records", "Transmissions missing from the as-run log"),
            ("evicted_files", "As-run files removed because of age or size"),
        ):
            family = CounterMetricFamily(f"portcullis_cycler_asrun_{what}", text, labels=["stream"])
            for stream in self._streams:
                counts = stream.asrun.counts | {"evicted_files": stream.asrun.writer.evicted}
                family.add_metric([stream.config.name], counts.get(what, 0))
            yield family
