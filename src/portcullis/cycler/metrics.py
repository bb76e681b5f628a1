"""What Prometheus reads: the cycler's own counts, looked up when asked."""

from collections.abc import Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.registry import Collector

from dvbwire.ts import PACKET_SIZE
from portcullis.cycler.follower import DatabaseClock, Follower
from portcullis.cycler.link import LinkState
from portcullis.cycler.reports import FirstAiringReports
from portcullis.cycler.stream import Stream
from portcullis.runtime.metrics import counter_family, gauge_family

_BYTES_PER_S = 125  # of 1 kbit/s

_FEED_AGE = gauge_family(
    "portcullis_cycler_feed_age_seconds", "Time since the feed of EMMs was last read"
)
_UNWRITTEN = gauge_family(
    "portcullis_cycler_first_airings_unwritten", "First airings not yet in the database"
)
_DATABASE_ERRORS = counter_family(
    "portcullis_cycler_database_errors_total", "Failed statements, by what for", "what"
)
_MALFORMED = counter_family(
    "portcullis_cycler_malformed_emms_total",
    "EMMs not aired because they are no section or contradict it",
)
_AIRED = {
    "packets": counter_family("portcullis_cycler_aired_packets_total", "Packets aired", "stream"),
    "emms": counter_family("portcullis_cycler_aired_emms_total", "EMMs aired", "stream"),
}
_AIRED_BYTES = counter_family(
    "portcullis_cycler_aired_bytes_total", "Bytes aired, as packets", "stream"
)
_CLASS_SIZE = gauge_family("portcullis_cycler_class_emms", "EMMs in a class", "stream", "class")
_CLASS_PERIOD = gauge_family(
    "portcullis_cycler_class_period_seconds",
    "Configured time from one airing of an EMM to its next",
    *("stream", "class"),
)
_CLASS_STRETCH = gauge_family(
    "portcullis_cycler_class_stretch_ratio",
    "Actual period of a class over the configured; no sample on a standby",
    *("stream", "class"),
)
_CLASS_CYCLE = gauge_family(
    "portcullis_cycler_class_cycle_seconds",
    "Actual time from one airing of an EMM to its next; no sample on a standby",
    *("stream", "class"),
)
_CLASS_AIRED = counter_family(
    "portcullis_cycler_class_aired_emms_total",
    "EMMs aired from a class; class first: first airings",
    *("stream", "class"),
)
_FIRST_WAITING = gauge_family(
    "portcullis_cycler_first_waiting", "EMMs awaiting their first airing", "stream"
)
_ASKED = gauge_family(
    "portcullis_cycler_bandwidth_asked_bytes_per_second", "Bandwidth asked for", "stream"
)
_ALLOCATED = gauge_family(
    "portcullis_cycler_bandwidth_allocated_bytes_per_second",
    "Bandwidth allocated; 0 without a stream",
    "stream",
)
_LINK = gauge_family(
    "portcullis_cycler_link",
    "1 for the state the link is in: down, channel_open, in_use, stream_open",
    *("stream", "state"),
)
_HOLDS = gauge_family("portcullis_cycler_holds_lease", "1 while this cycler airs", "stream")
_UNCONFIRMED = gauge_family(
    "portcullis_cycler_lease_unconfirmed",
    "1 while this cycler airs under a lease that it could not renew: another may air too",
    "stream",
)
_LEASE_LOST = counter_family(
    "portcullis_cycler_lease_lost_total",
    "Times another was found to hold the lease while this cycler aired: both did for a while",
    "stream",
)
_LINK_EVENTS = counter_family(
    "portcullis_cycler_link_events_total", "Mishaps on the link, by kind", "stream", "kind"
)
_ASRUN = {
    "errors": counter_family(
        "portcullis_cycler_asrun_errors_total", "Failed writes of the as-run log", "stream"
    ),
    "lost_records": counter_family(
        "portcullis_cycler_asrun_lost_records_total",
        "Transmissions missing from the as-run log",
        "stream",
    ),
    "evicted_files": counter_family(
        "portcullis_cycler_asrun_evicted_files_total",
        "As-run files removed because of age or size",
        "stream",
    ),
}


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
        feed_age, unwritten, malformed = _FEED_AGE(), _UNWRITTEN(), _MALFORMED()
        feed_age.add_metric([], self._clock.now() - self._follower.read_at)
        unwritten.add_metric([], len(self._first_airings))
        malformed.add_metric([], self._follower.counts["malformed"])
        errors = _DATABASE_ERRORS()
        errors.add_metric(["feed"], self._follower.counts["database"])
        errors.add_metric(["first_airings"], self._first_airings.errors)
        errors.add_metric(["leases"], sum(one.counts["lease_errors"] for one in self._streams))
        yield from (feed_age, unwritten, malformed, errors)

    def _air(self) -> Iterator[Metric]:
        for what, new_family in _AIRED.items():
            family = new_family()
            for stream in self._streams:
                family.add_metric([stream.config.name], stream.aired[what])
            yield family
        octets = _AIRED_BYTES()
        for stream in self._streams:
            octets.add_metric([stream.config.name], stream.aired["packets"] * PACKET_SIZE)
        yield octets

    def _classes(self) -> Iterator[Metric]:
        size, period, stretch = _CLASS_SIZE(), _CLASS_PERIOD(), _CLASS_STRETCH()
        cycle, aired, first = _CLASS_CYCLE(), _CLASS_AIRED(), _FIRST_WAITING()
        now = self._clock.now()
        for stream in self._streams:
            carousel, name = stream.carousel, stream.config.name
            for index, one in enumerate(stream.config.classes):
                labels = [name, one.name]
                size.add_metric(labels, carousel.size(index))
                period.add_metric(labels, one.every)
                if stream.holds:
                    ratio = carousel.stretch(index, now)
                    stretch.add_metric(labels, ratio)
                    cycle.add_metric(labels, ratio * one.every)
                aired.add_metric(labels, carousel.aired[index])
            aired.add_metric([name, "first"], carousel.first_aired)
            first.add_metric([name], carousel.first_size)
        yield from (size, period, stretch, cycle, aired, first)

    def _links(self) -> Iterator[Metric]:
        asked, allocated, state = _ASKED(), _ALLOCATED(), _LINK()
        holds, unconfirmed = _HOLDS(), _UNCONFIRMED()
        lost, events = _LEASE_LOST(), _LINK_EVENTS()
        for stream in self._streams:
            name, link = stream.config.name, stream.link
            is_open = link.state is LinkState.STREAM_OPEN
            asked.add_metric([name], stream.config.bandwidth_kbit_s * _BYTES_PER_S)
            allocated.add_metric([name], link.allocated_kbit_s * _BYTES_PER_S if is_open else 0)
            for one in LinkState:
                state.add_metric([name, one.value], link.state is one)
            holds.add_metric([name], stream.holds)
            unconfirmed.add_metric([name], stream.is_unconfirmed)
            lost.add_metric([name], stream.counts["lease_lost"])
            for kind, count in link.counts.items():
                events.add_metric([name, kind], count)
        yield from (asked, allocated, state, holds, unconfirmed, lost, events)

    def _asrun(self) -> Iterator[Metric]:
        for what, new_family in _ASRUN.items():
            family = new_family()
            for stream in self._streams:
                counts = stream.asrun.counts | {"evicted_files": stream.asrun.writer.evicted}
                family.add_metric([stream.config.name], counts.get(what, 0))
            yield family
