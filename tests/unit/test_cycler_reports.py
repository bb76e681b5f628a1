"""What the cycler tells is kept until it is written."""

import asyncio
import threading
from pathlib import Path

import pytest

from portcullis.cycler.asrun import AsRunWriter, Batch, query
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
    reports = AsRunReports(AsRunWriter(tmp_path / "s", 90, 1 << 30), asyncio.Lock())
    reports.batch.add(1_000_000, headers_of(7), 0, 1)
    asyncio.run(reports.flush())
    assert reports.counts["errors"] == 1
    (tmp_path / "s").unlink()
    reports.batch.add(2_000_000, headers_of(8), 0, 1)
    asyncio.run(reports.flush())
    reports.writer.close()
    assert [record.device_id for record in query(tmp_path)] == [7, 8]


def test_streams_write_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for its turn is still there when it is given up, as at a stop."""
    turn, writing, most = asyncio.Lock(), threading.Semaphore(1), []
    streams = [AsRunReports(AsRunWriter(tmp_path / f"s{i}", 90, 1 << 30), turn) for i in range(3)]
    write = AsRunWriter.write

    def alone(writer: AsRunWriter, batch: Batch) -> list[Path]:
        most.append(writing.acquire(blocking=False))
        evicted = write(writer, batch)
        writing.release()
        return evicted

    monkeypatch.setattr(AsRunWriter, "write", alone)

    async def flush() -> None:
        async with turn:
            waiting = asyncio.create_task(streams[0].flush())
            await asyncio.sleep(0)
            waiting.cancel()
        await asyncio.gather(*(one.flush() for one in streams))

    for number, one in enumerate(streams):
        one.batch.add(1_000_000, headers_of(number), 0, 1)
    asyncio.run(flush())
    for one in streams:
        one.writer.close()
    assert most == [True] * 3
    assert sorted(record.device_id for record in query(tmp_path)) == [0, 1, 2]
