"""`several`: EMMGs, encryptors and gateways, one, two and four of each, and who uses the cores."""

import os
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from bench.generate import rekey_s
from bench.headend import HeadEnd, head_end
from bench.mariadb import Server, server
from bench.measure import Measured, Meter
from bench.population import orderable, states
from bench.result import Criterion, Result
from bench.sms import gateway, wrk

COUNTS = (1, 2, 4)
_CLIENTS = 64
_EMMGS = 4  # where encryptors are counted
_SHARE = "share of the cores"
_RATE = "per s"
UNITS = {"EMMG": "states/s", "encryptor": "states/s", "gateway": "orders/s"}


def _measured(groups: Mapping[str, Sequence[int]], rate: Measured, rounds: int) -> dict[str, float]:
    """The median rate, and what each group of processes used of all cores meanwhile."""
    with ExitStack() as stack:
        meters = {who: stack.enter_context(Meter(pids)) for who, pids in groups.items()}
        found = [rate() for _ in range(rounds)]
    cores = os.cpu_count() or 1
    shares = {f"{_SHARE}, {who}": round(m.cpu / m.wall / cores, 3) for who, m in meters.items()}
    return {_RATE: statistics.median(found)} | shares


def _rekeys(
    head: HeadEnd, boxes: int, groups: Mapping[str, Sequence[int]], rounds: int
) -> dict[str, float]:
    """States a second of re-keys one after the other."""
    rekey_s(head)  # connections, caches
    return _measured(groups, lambda: boxes / rekey_s(head), rounds)


def _emmgs(head: HeadEnd, boxes: int, count: int, rounds: int) -> dict[str, float]:
    with head.emmgs(count) as pids:
        groups = {"emmg": pids, "encryptor": [head.encryptor], "database": [head.server.pid]}
        return _rekeys(head, boxes, groups, rounds)


def _encryptors(head: HeadEnd, boxes: int, count: int, rounds: int) -> dict[str, float]:
    with head.encryptors(count) as sockets, head.emmgs(_EMMGS, list(sockets)) as pids:
        own = list(sockets.values())
        groups = {"emmg": pids, "encryptor": own, "database": [head.server.pid]}
        return _rekeys(head, boxes, groups, rounds)


def _gateways(
    database: Server, boxes: int, count: int, seconds: int, rounds: int
) -> dict[str, float]:
    """Orders a second of all gateways together, each asked by its share of the clients."""
    with ExitStack() as stack:
        gateways = [stack.enter_context(gateway(database)) for _ in range(count)]

        def all_at_once(seconds: int) -> float:
            with ThreadPoolExecutor(count) as clients:
                loads = clients.map(
                    lambda one: wrk(one.url, boxes, _CLIENTS // count, seconds), gateways
                )
                return sum(load.accepted / load.seconds for load in loads)

        all_at_once(max(seconds // 4, 1))
        groups = {"gateway": [one.pid for one in gateways], "database": [database.pid]}
        return _measured(groups, lambda: all_at_once(seconds), rounds)


def run(boxes: int = 40_000, seconds: int = 5, rounds: int = 3) -> Result:
    """Measure."""
    found: dict[str, dict[int, dict[str, float]]] = {what: {} for what in UNITS}
    with server() as database, head_end(database, boxes) as head:
        states(database, boxes, "3")
        for count in COUNTS:
            found["EMMG"][count] = _emmgs(head, boxes, count, rounds)
            found["encryptor"][count] = _encryptors(head, boxes, count, rounds)
    with server() as database:
        orderable(database, boxes)
        for count in COUNTS:
            found["gateway"][count] = _gateways(database, boxes, count, seconds, rounds)
    figures: dict[str, Any] = {"boxes": boxes, "EMMGs where encryptors are counted": _EMMGS}
    for what, counted in found.items():
        for count, one in counted.items():
            figures[f"{count} × {what}: {UNITS[what]}"] = round(one.pop(_RATE))
            figures |= {f"{count} × {what}: {name}": value for name, value in one.items()}
    most = COUNTS[-1]
    return Result(
        "several",
        "one process of the same, database and clients on the same cores",
        [
            Criterion(
                f"{most} × {what}",
                figures[f"{most} × {what}: {unit}"] / figures[f"1 × {what}: {unit}"],
                0.9,
                1,
            )
            for what, unit in UNITS.items()
        ],
        figures,
    )
