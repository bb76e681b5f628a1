"""`gateway`: durable orders a second of one worker, beside a commit per order and no database."""

import statistics
from contextlib import ExitStack

from bench.mariadb import server
from bench.measure import Meter
from bench.population import orderable
from bench.processes import PORTCULLIS
from bench.result import Criterion, Result
from bench.sms import Load, gateway, variant, wrk

_CLIENTS = 64
_PROGRAMS = {"group commit": PORTCULLIS, "pool": variant("pool"), "none": variant("none")}


def _rate(load: Load) -> float:
    assert load.accepted, load
    assert load.other == 0, load
    return load.accepted / load.seconds


def run(boxes: int = 100_000, seconds: int = 8, rounds: int = 5) -> Result:
    """Measure."""
    loads: dict[str, list[Load]] = {name: [] for name in _PROGRAMS}
    cpu_us: dict[str, list[float]] = {"gateway": [], "database": []}
    with server() as database, ExitStack() as stack:
        orderable(database, boxes)
        gateways = {
            name: stack.enter_context(gateway(database, program))
            for name, program in _PROGRAMS.items()
        }
        for one in gateways.values():
            wrk(one.url, boxes, _CLIENTS, max(seconds // 4, 1))
        for _ in range(rounds):
            for name, one in gateways.items():
                with Meter([one.pid]) as ours, Meter([database.pid]) as theirs:
                    loads[name].append(load := wrk(one.url, boxes, _CLIENTS, seconds))
                if name == "group commit":
                    cpu_us["gateway"].append(ours.cpu / load.accepted * 1e6)
                    cpu_us["database"].append(theirs.cpu / load.accepted * 1e6)
    rate = {name: statistics.median(map(_rate, some)) for name, some in loads.items()}
    figures = {f"orders/s, {name}": round(value) for name, value in rate.items()}
    figures |= {
        f"p99 of an answer, ms, {name}": round(statistics.median(one.ms_p99 for one in some), 1)
        for name, some in loads.items()
    }
    figures |= {
        f"µs of CPU an order, {name}": round(statistics.median(some), 1)
        for name, some in cpu_us.items()
    }
    return Result(
        "gateway",
        "the same gateway with a commit per order in a pool of 16, and with no database",
        [
            Criterion("against a commit per order", rate["group commit"] / rate["pool"], 1.5, 2),
            Criterion("against no database", rate["group commit"] / rate["none"], 0.35, 0.6),
        ],
        figures | {"clients": _CLIENTS, "boxes": boxes},
    )
