"""`carousel-memory`: what a cycler with a million EMMs takes, after a start from the database."""

import time
from pathlib import Path

from bench.cycler import STEADY, cycler
from bench.mariadb import server
from bench.measure import resident_bytes
from bench.population import states
from bench.result import Criterion, Result

_BOXES = 1_000_000
_AIR_S = 10


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def _resident(products: str) -> tuple[int, int, int]:
    """Resident and peak memory, and that of a cycler without an EMM."""
    stream = "bandwidth_kbit_s = 3000\n" + STEADY.format(every="30min")
    with server() as database:
        with cycler(database.url, [stream]) as empty:
            time.sleep(3)
            bare = resident_bytes(empty.pid)
        states(database, _BOXES, products)
        with cycler(database.url, [stream]) as full:
            before = full.metric("portcullis_cycler_aired_emms_total")
            time.sleep(_AIR_S)
            aired = full.metric("portcullis_cycler_aired_emms_total") - before
            assert full.metric("portcullis_cycler_class_emms") == _BOXES
            assert aired > 0.2 * _AIR_S * _BOXES / 1800, aired
            return resident_bytes(full.pid), _peak_bytes(full.pid), bare


def run() -> Result:
    """Measure."""
    packets = _BOXES * 188
    five, peak, bare = _resident("5")
    mixed, _, _ = _resident("1 + seq MOD 5")
    return Result(
        "carousel-memory",
        "N × 188 bytes, one transport packet an EMM",
        [
            Criterion(
                "boxes with one to five products", mixed / packets, 1.5, 1.2, less_is_better=True
            ),
            Criterion(
                "all boxes with five products", five / packets, 1.5, 1.5, less_is_better=True
            ),
        ],
        {
            "EMMs": _BOXES,
            "MB resident, one to five products": round(mixed / 1e6),
            "MB resident, five products": round(five / 1e6),
            "MB at the peak of the start": round(peak / 1e6),
            "MB without any EMM": round(bare / 1e6),
            "bytes an EMM beyond that and beyond its section": round(
                (five - bare) / _BOXES - 178, 1
            ),
        },
    )
