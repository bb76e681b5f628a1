"""`asrun`: what the as-run log costs, how large it is, and how fast it answers for one box."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from bench.air import MOST_KBIT_S, aired_per_cpu_s, population, saturated
from bench.mariadb import server
from bench.measure import Measured, Round, in_rounds, median_ratio, medians
from bench.processes import PORTCULLIS, folder
from bench.result import Criterion, Result
from portcullis.cycler.arena import StateSections
from portcullis.cycler.asrun import SUFFIX, AsRunWriter, Batch
from portcullis.cycler.asrun_block import records_of
from portcullis.cycler.carousel import Carousel
from portcullis.cycler.config import AiringClass
from portcullis.runtime.config import Duration

_SETTLE_S = 2
_LOGLESS = [sys.executable, "-m", "bench.logless"]
_PACKETS_PER_S = 665  # of 1 Mbit/s
_PER_TURN = 3  # what the cycler sends at once at that rate
_TURN_US = 1_000_000 * _PER_TURN // _PACKETS_PER_S


def _cost(boxes: int, seconds: float, rounds: int) -> list[Round]:
    """Packets a CPU second with and without the log; one cycler after the other has the lease."""
    with server() as database:
        population(database, boxes)

        def of(program: Sequence[str]) -> Measured:
            def measured() -> float:
                with saturated(database, "tcp", program=program) as airing:
                    time.sleep(_SETTLE_S)
                    return aired_per_cpu_s(airing, seconds)()

            return measured

        return in_rounds({"with": of(PORTCULLIS), "without": of(_LOGLESS)}, rounds)


def _carousel(boxes: int) -> Carousel:
    """Boxes in the last class, which airs whenever it may."""
    devices = np.arange(1, boxes + 1)
    head = np.zeros((boxes, 16), np.uint8)
    size = 63 + 23 * (1 + devices % 5)  # one to five products
    head[:, 0] = 0x82
    head[:, 1:3] = (0x7000 | (size - 3)).astype(">u2").view(np.uint8).reshape(-1, 2)
    head[:, 3:8] = devices.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 3:]
    head[:, 8:10] = 0x11
    numbers = 1_700_000_000 + np.random.default_rng(1).integers(0, 30 * 86_400, boxes)
    head[:, 12:] = numbers.astype(">u4").view(np.uint8).reshape(-1, 4)
    sections = b"".join(
        one.tobytes() + bytes(rest) for one, rest in zip(head, (size - 16).tolist(), strict=True)
    )
    carousel = Carousel([AiringClass(name="steady", every=Duration(1))])
    carousel.begin_load()
    carousel.settle(StateSections.of(sections, 0, boxes), 0.0, 0.0)
    carousel.end_load()
    return carousel


def write_day(directory: Path, boxes: int, seconds: int, begin: datetime) -> int:
    """The log of a stream of 1 Mbit/s for so many seconds; how many records."""
    carousel = _carousel(boxes)
    writer = AsRunWriter(directory, keep_days=90, keep_bytes=2000 << 20)
    turns = np.arange(_PACKETS_PER_S) // _PER_TURN * _TURN_US
    start_us = int(begin.timestamp()) * 1_000_000
    count = 0
    for second in range(seconds):
        slots = carousel.take(_PACKETS_PER_S, 10.0 + second * 10, 10.0 + second * 10).slots
        records = records_of([(0, carousel.arena.headers(slots), 0, len(slots))])
        records["time"] = start_us + second * 1_000_000 + turns[: len(records)]
        batch = Batch()
        batch.append(records)
        writer.write(batch)
        count += len(records)
    writer.close()
    return count


def _query_s(home: Path, device: int, begin: datetime) -> tuple[float, int]:
    """Seconds `portcullis asrun` takes for one box, and how many airings it has found."""
    config = home / "portcullis.toml"
    config.write_text(f'[cycler]\nasrun_dir = "{home}/asrun"\n', encoding="utf-8")
    since = ["--since", begin.isoformat(), "--until", (begin + timedelta(days=1)).isoformat()]
    command = [*PORTCULLIS, "asrun", "--config", str(config), "--device", str(device), *since]
    begun = time.perf_counter()
    run = subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun, len(run.stdout.splitlines())


def run(
    boxes: int = 100_000,
    seconds: float = 8,
    rounds: int = 5,
    day_boxes: int = 1_000_000,
    day_s: int = 86_400,
) -> Result:
    """Measure."""
    each = _cost(boxes, seconds, rounds)
    cost = medians(each)
    begin = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begin -= timedelta(days=1)
    with folder() as home:
        directory = home / "asrun" / "0xFFF00001-1"
        begun = time.process_time()
        records = write_day(directory, day_boxes, day_s, begin)
        written_s = time.process_time() - begun
        size = sum(path.stat().st_size for path in directory.glob(f"*{SUFFIX}"))
        os.sync()
        found = [_query_s(home, device, begin) for device in (1, day_boxes // 2, day_boxes)]
        # Each box as often as every other, but for the one where the day ends.
        for _, airings in found:
            assert abs(airings - records / day_boxes) <= 1, airings
    slowest = max(seconds for seconds, _ in found)
    return Result(
        "asrun",
        "the same cycler without the log; bytes; seconds",
        [
            Criterion(
                "CPU for the log, over that of a cycler without it",
                100 * (median_ratio(each, lambda one: one["without"] / one["with"]) - 1),
                30,
                10,
                "%",
                less_is_better=True,
            ),
            Criterion(
                "bytes of a record on disk", size / records, 12, 6, "bytes", less_is_better=True
            ),
            Criterion(
                "query of one box in that day, start of the command included",
                slowest,
                5,
                1,
                "s",
                less_is_better=True,
            ),
        ],
        {
            "kbit/s asked for while the cost is measured": MOST_KBIT_S,
            "µs of CPU a packet, with the log": round(1e6 / cost["with"], 3),
            "µs of CPU a packet, without it": round(1e6 / cost["without"], 3),
            "records of the day": records,
            "bytes of a record of the day": round(size / records, 3),
            "boxes of the day": day_boxes,
            "MB of the day": round(size / 1e6, 1),
            "s of CPU to choose and write the day": round(written_s, 1),
        },
    )
