"""`air`: packets sent in a CPU second of the whole cycler, beside a C `sendmmsg` loop."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from bench.baseline import packets, sent_per_cpu_s, sink
from bench.cycler import Cycler, Drain, cycler
from bench.mariadb import Server, free_port, server
from bench.measure import Measured, Meter, Round, in_rounds, median_ratio, medians
from bench.population import WALKED_LONG_AGO, states
from bench.processes import PORTCULLIS
from bench.result import Criterion, Result

MOST_KBIT_S = 65535  # what stream_BW_request can ask for
_STREAMS = 12  # one such stream leaves nine tenths of a core idle
# Every class has something due at any time, and together more than the bandwidth carries.
_CLASSES = """
[[cycler.stream.class]]
name = "fresh"
every = "200ms"
airings = 50000
min_share = 0.1
[[cycler.stream.class]]
name = "steady"
every = "1s"
min_share = 0.3
"""
_A_TENTH_IS_FRESH = f"IF(seq MOD 10, {WALKED_LONG_AGO}, NOW(6) - INTERVAL 10 SECOND)"


@contextmanager
def saturated(
    database: Server,
    provision: str,
    kbit_s: int = MOST_KBIT_S,
    *,
    streams: int = 1,
    program: Sequence[str] = PORTCULLIS,
    drain: Drain | None = None,
) -> Iterator[Cycler]:
    """A cycler that always has more due than it may send, on each of its streams."""
    stream = f'bandwidth_kbit_s = {kbit_s}\nprovision = "{provision}"\n{_CLASSES}'
    with cycler(database.url, [stream] * streams, program, drain) as airing:
        yield airing


def population(database: Server, boxes: int) -> None:
    """Boxes of which a tenth is in the first class; one packet each."""
    states(database, boxes, "1 + seq MOD 5", _A_TENTH_IS_FRESH)


def aired_per_cpu_s(one: Cycler, seconds: float) -> Measured:
    """Packets a CPU second of a cycler."""

    def measured() -> float:
        name = "portcullis_cycler_aired_packets_total"
        before = one.metric(name)
        with Meter([one.pid]) as meter:
            time.sleep(seconds)
        sent = one.metric(name) - before
        assert sent
        return sent / meter.cpu

    return measured


def run(boxes: int = 100_000, seconds: float = 5, rounds: int = 5) -> Result:
    """Measure."""
    found: dict[tuple[str, int], list[Round]] = {}
    with packets() as program, server() as database:
        population(database, boxes)
        for provision in ("tcp", "udp"):
            for streams in (1, _STREAMS):
                # Over UDP both are heard by the same program.
                with saturated(
                    database, provision, streams=streams, drain=partial(sink, program)
                ) as airing:
                    time.sleep(seconds)  # the first turns come after the start
                    found[provision, streams] = in_rounds(
                        {
                            "ours": aired_per_cpu_s(airing, seconds),
                            "C": lambda: sent_per_cpu_s(program, free_port(), seconds),
                        },
                        rounds,
                    )
    figures: dict[str, float] = {}
    ratios = {
        key: median_ratio(rounds, lambda one: one["ours"] / one["C"])
        for key, rounds in found.items()
    }
    for (provision, streams), ratio in ratios.items():
        pair = medians(found[provision, streams])
        what = f"{streams} × {MOST_KBIT_S} kbit/s over {provision.upper()}"
        figures[f"packets a CPU second, {what}"] = round(pair["ours"])
        figures[f"packets a CPU second, C beside {what}"] = round(pair["C"])
        figures[f"ratio, {what}"] = round(ratio, 3)
    return Result(
        "air",
        "a C loop of `sendmmsg`, seven packets a datagram, per CPU second each",
        [
            Criterion(
                f"SimulCrypt over {provision.upper()}, {_STREAMS} streams of one cycler",
                ratios[provision, _STREAMS],
                0.25,
                0.5,
            )
            for provision in ("tcp", "udp")
        ],
        figures
        | {
            "µs of CPU a packet aired over TCP": round(1e6 / medians(found["tcp", 1])["ours"], 3),
            "EMMs of a stream": boxes,
        },
    )
