"""`several`: EMMGs, encryptors and gateways, one, two and four of each, and who uses the cores."""

import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from typing import Any

from bench.generate import rekey_s
from bench.headend import HeadEnd, head_end
from bench.mariadb import Server, server
from bench.measure import Measured, Meter, medians
from bench.population import orderable, states
from bench.result import Criterion, Result
from bench.sms import gateway, wrk

COUNTS = (1, 2, 4)
_CLIENTS = 64
_EMMGS = 4  # where encryptors are counted
_SHARE = "share of the cores"
_RATE = "per s"
UNITS = {"EMMG": "states/s", "encryptor": "states/s", "gateway": "orders/s"}


def _measured(groups: Mapping[str, Sequence[int]], rate: Measured) -> dict[str, float]:
    """The rate, and what each group of processes used of all cores meanwhile."""
    with ExitStack() as stack:
        meters = {who: stack.enter_context(Meter(pids)) for who, pids in groups.items()}
        found = rate()
    cores = os.cpu_count() or 1
    return {_RATE: found} | {
        f"{_SHARE}, {who}": m.cpu / m.wall / cores for who, m in meters.items()
    }


def _rekey(head: HeadEnd, boxes: int, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """States a second of a re-key."""
    rekey_s(head)  # connections, caches
    return _measured(groups, lambda: boxes / rekey_s(head))


def _emmgs(head: HeadEnd, boxes: int, count: int) -> dict[str, float]:
    with head.emmgs(count) as pids:
        groups = {"emmg": pids, "encryptor": [head.encryptor], "database": [head.server.pid]}
        return _rekey(head, boxes, groups)


def _encryptors(head: HeadEnd, boxes: int, count: int) -> dict[str, float]:
    with head.encryptors(count) as sockets, head.emmgs(_EMMGS, list(sockets)) as pids:
        own = list(sockets.values())
        groups = {"emmg": pids, "encryptor": own, "database": [head.server.pid]}
        return _rekey(head, boxes, groups)


def _gateways(database: Server, boxes: int, count: int, seconds: int) -> dict[str, float]:
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
        return _measured(groups, lambda: all_at_once(seconds))


def run(boxes: int = 40_000, seconds: int = 5, rounds: int = 3) -> Result:
    """Measure all counts in turn, `rounds` times: a core's clock changes meanwhile."""
    found: dict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    with server() as database, head_end(database, boxes) as head:
        states(database, boxes, "3")
        for count in COUNTS * rounds:
            found[count, "EMMG"].append(_emmgs(head, boxes, count))
            found[count, "encryptor"].append(_encryptors(head, boxes, count))
    with server() as database:
        orderable(database, boxes)
        for count in COUNTS * rounds:
            found[count, "gateway"].append(_gateways(database, boxes, count, seconds))
    figures: dict[str, Any] = {"boxes": boxes, "EMMGs where encryptors are counted": _EMMGS}
    for what, count in product(UNITS, COUNTS):
        one = medians(found[count, what])
        figures[f"{count} × {what}: {UNITS[what]}"] = round(one.pop(_RATE))
        figures |= {f"{count} × {what}: {name}": round(value, 3) for name, value in one.items()}
    most = COUNTS[-1]
    return Result(
        "several",
        "one process of the same, database and clients on the same cores",
        [
            Criterion(
                f"{most} × {what}",
                statistics.median(
                    many[_RATE] / one[_RATE]
                    for one, many in zip(found[1, what], found[most, what], strict=True)
                ),
                0.9,
                1,
            )
            for what in UNITS
        ],
        figures,
    )
