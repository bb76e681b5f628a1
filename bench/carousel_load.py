"""`carousel-load`: a cold cycler until it has read every EMM and airs, beside the bare SELECT."""

import time

from bench.cycler import STEADY, cycler
from bench.mariadb import Server, server
from bench.measure import interleave
from bench.population import states
from bench.result import Criterion, Result

_COLUMNS = "device_id, message_id, part, parts, number, cause, section, first_aired_at"


def _select_s(database: Server) -> float:
    """Seconds the `mariadb` client takes to read the same rows."""
    begun = time.perf_counter()
    database.client(f"SELECT {_COLUMNS} FROM emms")
    return time.perf_counter() - begun


def _start_s(database: Server, boxes: int) -> float:
    """Seconds from the start of the process to the first packet at the multiplexer.

    A cycler airs nothing before it has read all.
    """
    stream = "bandwidth_kbit_s = 3000\n" + STEADY.format(every="30min")
    with cycler(database.url, [stream]) as cold:
        assert cold.metric("portcullis_cycler_class_emms") == boxes
        while not cold.metric("portcullis_cycler_aired_packets_total"):
            time.sleep(0.02)
        (noted,) = cold.noted().values()
        return float(noted[0, 0]) - cold.started_at


def run(boxes: int = 1_000_000, rounds: int = 3) -> Result:
    """Measure."""
    with server() as database:
        states(database, boxes)
        found = interleave(
            {
                "select": lambda: _select_s(database),
                "start": lambda: _start_s(database, boxes),
            },
            rounds,
        )
    return Result(
        "carousel-load",
        "a SELECT of the same rows by the `mariadb` client, its output dropped",
        [
            Criterion(
                "start of the process to the first packet, all read",
                found["start"] / found["select"],
                3,
                1.5,
                less_is_better=True,
            )
        ],
        {
            "EMMs": boxes,
            "s until the first packet": round(found["start"], 2),
            "s of the SELECT": round(found["select"], 2),
        },
    )
