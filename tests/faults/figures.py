"""What the proofs measured: a JSON file each under var/faults, one table in docs/reliability.md.

`record` is for the tests; `python -m tests.faults.figures` writes the table.
"""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.scale import IS_FULL

REPOSITORY = Path(__file__).parents[2]
FIGURES = REPOSITORY / "var" / "faults"
PAGE = REPOSITORY / "docs" / "reliability.md"
BEGIN, END = "<!-- begin: make test-faults writes this -->", "<!-- end -->"

COLUMNS = {
    "for_s": "for s",
    "faults": "faults",
    "orders": "orders",
    "orders_per_s": "orders/s",
    "lost": "lost",
    "doubled": "doubled",
    "boxes_wrong": "boxes wrong",
    "worst_gap_s": "worst gap s",
    "mean_recovery_s": "recovery s, mean",
    "worst_recovery_s": "worst",
}
"""Figures that have a column; others stand in the last one under their own name."""


def record(name: str, proof: str, **figures: float | str) -> None:
    """Keep what a proof measured; `proof` names it in the table, `name` the file."""
    directory = FIGURES if IS_FULL else FIGURES / "short"
    directory.mkdir(parents=True, exist_ok=True)
    rounded = {
        key: round(value, 2) if isinstance(value, float) else value
        for key, value in figures.items()
    }
    row = {
        "proof": proof,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "figures": rounded,
    }
    text = json.dumps(row, indent=1, ensure_ascii=False)
    (directory / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def machine() -> str:
    """What it was measured on."""
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
        if line.startswith("model name")
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({cpu}), {memory_gib:.0f} GiB, "
        f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    )


def table(directory: Path) -> str:
    """The figures of every proof, as Markdown."""
    rows = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))
    ]
    lines = [
        f"| proof | {' | '.join(COLUMNS.values())} | besides |",
        "|" + "---|" * (len(COLUMNS) + 2),
    ]
    for row in rows:
        figures = row["figures"]
        cells = [str(figures.pop(key, "–")) for key in COLUMNS]
        besides = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in figures.items())
        lines.append(f"| {row['proof']} | {' | '.join(cells)} | {besides} |")
    when = sorted({row["at"][:10] for row in rows})
    where = sorted({row["machine"] for row in rows})
    lines += ["", f"Measured {', '.join(when)} on {'; '.join(where)}."]
    return "\n".join(lines)


def write_table(page: Path, directory: Path) -> None:
    """Put the table between the page's markers."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{table(directory)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write_table(PAGE, FIGURES)
