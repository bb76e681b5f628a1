"""What the cycler tells is kept until it is written."""

import asyncio
from pathlib import Path

from portcullis.cycler.asrun import AsRunWriter, query
from portcullis.cycler.reports import AsRunReports, FirstAiringReports
from portcullis.store.airable import FirstAiring
from portcullis.store.database import engine_for
from portcullis.store.migrate import migrate
from tests.unit.test_cycler_asrun import headers_of


def test_first_airings_wait_for_the_database(tmp_path: Path) -> None:
    """A failure is counted and nothing is dropped; the next flush writes it."""
    engine = engine_for(f"sqlite:///{tmp_path}/a.db")
    reports = FirstAiringReports(engine)
    reports.add([FirstAiring(1, 0, 1, 1, 1, completes_set=True, aired_at=1.8e9)])
    assert asyncio.run(reports.flush()) is False
    assert (len(reports), reports.errors) == (1, 1)
    migrate(engine)
    assert asyncio.run(reports.flush()) is True
    assert len(reports) == 0


def test_transmissions_wait_for_the_disk(tmp_path: Path) -> None:
    """In their order, with what was aired meanwhile behind them."""
    (tmp_path / "s").write_text("in the way")
    reports = AsRunReports(AsRunWriter(tmp_path / "s", 90, 1 << 30))
    reports.batch.add(1_000_000, headers_of(7), 0, 1)
    asyncio.run(reports.flush())
    assert reports.counts["errors"] == 1
    (tmp_path / "s").unlink()
    reports.batch.add(2_000_000, headers_of(8), 0, 1)
    asyncio.run(reports.flush())
    reports.writer.close()
    assert [record.device_id for record in query(tmp_path)] == [7, 8]
