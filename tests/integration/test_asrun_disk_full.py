"""The as-run log on a disk that takes nothing for a while."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from portcullis.cycler import asrun
from portcullis.cycler.asrun import AsRunWriter, Batch, query
from portcullis.cycler.asrun_block import RECORD
from portcullis.cycler.errors import AsRunError

NOON_US = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp() * 1e6)


def batch_of(second: int, devices: range) -> Batch:
    """One airing per device."""
    rows = [(NOON_US + second * 1_000_000, device, 7, 151, 1, 0) for device in devices]
    batch = Batch()
    batch.append(np.array(rows, RECORD))
    return batch


@contextmanager
def disk_full(at_bytes: int) -> Iterator[None]:
    """Let the kernel refuse what would make any file longer (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_refused_is_written_later_whole_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the journal, and in a block again and again: nothing torn hides what comes after it."""
    monkeypatch.setattr(asrun, "BLOCK_RECORDS", 1)  # each batch makes a block of the one before
    writer = AsRunWriter(tmp_path / "s", 90, 1 << 30)
    writer.write(batch_of(0, range(1, 3000)))
    following = batch_of(1, range(3000, 3010))
    with disk_full(at_bytes=100):  # in the middle of the block
        for _ in range(3):
            with pytest.raises(AsRunError, match=r"File too large|No space left"):
                writer.write(following)
    writer.write(following)
    more = batch_of(2, range(3010, 6000))
    # In the middle of the journal's entry.
    with disk_full(at_bytes=100), pytest.raises(AsRunError, match=r"File too large|No space left"):
        writer.write(more)
    writer.write(more)
    assert sorted(record.device_id for record in query(tmp_path)) == list(range(1, 6000))
    writer.close()
    assert sorted(record.device_id for record in query(tmp_path)) == list(range(1, 6000))
