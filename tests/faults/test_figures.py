"""The figures of the proofs become one table, in its place on the page."""

import json
from pathlib import Path

from tests.faults.figures import BEGIN, END, write_table


def test_the_table_stands_between_the_markers(tmp_path: Path) -> None:
    """Figures with a column, figures without, and what a proof does not measure."""
    row = {
        "proof": "rain",
        "at": "2026-01-02T03:04:05+00:00",
        "machine": "an abacus",
        "figures": {"orders": 5, "lost": 0, "drops_counted": 7},
    }
    (tmp_path / "9-rain.json").write_text(json.dumps(row), encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write_table(page, tmp_path)
    before, *table, measured, end, after = page.read_text(encoding="utf-8").splitlines()
    assert (before, end, after) == ("before", END, "after")
    assert table[0] == BEGIN
    cells = [cell.strip() for cell in table[3].strip("|").split("|")]
    heads = [cell.strip() for cell in table[1].strip("|").split("|")]
    assert dict(zip(heads, cells, strict=True)) == {
        **dict.fromkeys(heads, "–"),
        "proof": "rain",
        "orders": "5",
        "lost": "0",
        "besides": "drops counted 7",
    }
    assert measured == "Measured 2026-01-02 on an abacus."
