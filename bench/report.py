"""The page of the benchmarks, from `var/bench/*.json`."""

from collections.abc import Mapping
from pathlib import Path

from bench.result import RESULTS

NAMES: Mapping[str, str] = {
    "envelope": "sealing in the batch path, one fresh DEK an EMM",
    "encryptor": "the same through the running encryptor's RPC, device keys opened",
    "carousel-memory": "resident memory of a cycler with 1,000,000 EMMs",
    "generate": "a re-key: due boxes claimed, sealed, written",
}
"""Every benchmark, in the order in which they are run, and what it measures."""

PAGE = Path("docs/benchmarks.md")


def missing() -> list[str]:
    """Benchmarks of which there is no result yet."""
    return [name for name in NAMES if not (RESULTS / f"{name}.json").exists()]


def write_page() -> None:
    """Write `docs/benchmarks.md`."""
    PAGE.write_text("", encoding="utf-8")
