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
from bench.processes import metric
from bench.result import Criterion, Result
from bench.sms import gateway, wrk

COUNTS = (1, 2, 4)
_CLIENTS = 64
_EMMGS = 4  # where encryptors are counted
_REKEYS = 8  # of one start of the processes: each alone takes 10 % more or less
_MISSES = 'portcullis_encryptor_kek_cache_total{result="miss"}'
_HARDLY = 33  # one in so many boxes
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


def _rekeys(head: HeadEnd, boxes: int, emmgs: int, encryptors: int) -> dict[str, float]:
    """States a second of some re-keys, once hardly a box is new to its encryptor.

    Else full caches would be compared with empty ones: one encryptor has every box's KEK after one
    re-key, four after a dozen, as a box has not the same one each time.
    """
    with head.encryptors(encryptors) as running, head.emmgs(emmgs, running) as pids:

        def misses() -> float:
            return sum(metric(one.monitor, _MISSES) for one in running)

        before = -boxes
        while (now := misses()) - before > boxes / _HARDLY:
            before = now
            rekey_s(head)
        groups = {
            "emmg": pids,
            "encryptor": [one.pid for one in running],
            "database": [head.server.pid],
        }
        return _measured(
            groups, lambda: _REKEYS * boxes / sum(rekey_s(head) for _ in range(_REKEYS))
        )


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


def run(boxes: int = 20_000, seconds: int = 5, rounds: int = 3) -> Result:
    """Measure all counts in turn, `rounds` times: a core's clock changes meanwhile."""
    found: dict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    with server() as database, head_end(database, boxes) as head:
        states(database, boxes, "3")
        for _ in range(rounds):
            for count in COUNTS:
                found[count, "EMMG"].append(_rekeys(head, boxes, count, 1))
            found[1, "encryptor"].append(found[_EMMGS, "EMMG"][-1])
            for count in COUNTS[1:]:
                found[count, "encryptor"].append(_rekeys(head, boxes, _EMMGS, count))
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
                statistics.mean(one[_RATE] for one in found[most, what])
                / statistics.mean(one[_RATE] for one in found[1, what]),
                0.9,
                1,
            )
            for what in UNITS
        ],
        figures,
    )
