"""`pace`: how evenly packets leave, by the kernel's clock at a multiplexer that notes each."""

import os
import time

import numpy as np
from numpy.typing import NDArray

from bench.air import MOST_KBIT_S, population, saturated
from bench.baseline import lateness_us, packets
from bench.mariadb import Server, server
from bench.measure import percentile
from bench.result import Criterion, Result

_RATES_KBIT_S = (100, 1000, 10_000, MOST_KBIT_S)
_SETTLE_S = 2


class Pace:
    """What one rate came to. `noted`: (Unix seconds, packets) of each message, in order."""

    def __init__(self, noted: NDArray[np.float64], kbit_s: int, seconds: float) -> None:
        packets_per_s = kbit_s * 1000 / 8 / 188
        begin = noted[0, 0] + _SETTLE_S
        noted = noted[(noted[:, 0] >= begin) & (noted[:, 0] < begin + seconds)]
        at, sent = noted[:, 0], noted[:, 1]
        passed = at[-1] - at[0]
        assert passed > seconds / 2, passed
        self.mean_percent = abs(sent[1:].sum() / passed / packets_per_s - 1) * 100
        windows = np.bincount((at - begin).astype(int), sent)[: int(passed)]
        off = np.abs(windows - packets_per_s)
        self.window_percent = float(np.where(off > 1, off / packets_per_s, 0).max()) * 100
        # A message is due when the packets before it and its own have had their time.
        gaps_s = np.diff(at) - sent[1:] / packets_per_s
        self.gap_ms = percentile((gaps_s * 1000).tolist(), 99)


def _write_out(database: Server) -> None:
    """Have all EMMs on the disk: to write them meanwhile would hold up what is measured."""
    database.run("FLUSH TABLES emms FOR EXPORT", "UNLOCK TABLES")
    os.sync()


def run(boxes: int = 100_000, seconds: float = 60, bare_s: float = 10) -> Result:
    """Measure."""
    paces: dict[int, Pace] = {}
    bare: dict[int, float] = {}
    with packets() as program, server() as database:
        population(database, boxes)
        _write_out(database)
        for kbit_s in _RATES_KBIT_S:
            with saturated(database, "udp", kbit_s) as airing:
                time.sleep(seconds + 2 * _SETTLE_S)
                (noted,) = airing.noted().values()
            paces[kbit_s] = Pace(noted, kbit_s, seconds)
            bare[kbit_s] = percentile(lateness_us(program, kbit_s, bare_s), 99) / 1000
    figures: dict[str, float] = {}
    for kbit_s, pace in paces.items():
        figures |= {
            f"{kbit_s} kbit/s: mean error, %": round(pace.mean_percent, 4),
            f"{kbit_s} kbit/s: worst second, %": round(pace.window_percent, 3),
            f"{kbit_s} kbit/s: p99 gap beyond the ideal, ms": round(pace.gap_ms, 2),
            f"{kbit_s} kbit/s: p99 lateness of the bare loop, ms": round(bare[kbit_s], 3),
        }
    return Result(
        "pace",
        "the rate asked for; lateness of a bare `clock_nanosleep` loop among the figures",
        [
            Criterion(what, value, floor, goal, unit, less_is_better=True)
            for what, value, floor, goal, unit in (
                ("mean error", max(one.mean_percent for one in paces.values()), 0.3, 0.05, "%"),
                (
                    "worst second, unless within one packet",
                    max(one.window_percent for one in paces.values()),
                    2,
                    0.5,
                    "%",
                ),
                (
                    "p99 of gaps between messages beyond the ideal",
                    max(one.gap_ms for one in paces.values()),
                    8,
                    3,
                    "ms",
                ),
            )
        ],
        figures | {"s at each rate": seconds},
    )
