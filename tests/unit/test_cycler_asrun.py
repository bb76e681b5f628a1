"""The as-run log answers for what was aired."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portcullis.cycler.asrun import AsRunWriter, Batch, _blocks, query
from portcullis.cycler.errors import AsRunError

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NOON_US = int(NOON.timestamp() * 1e6)


def batch_of(*devices: int, at_s: float = 0.0) -> Batch:
    """One airing per device, a millisecond apart."""
    batch = Batch()
    for index, device in enumerate(devices):
        batch.add(NOON_US + int(at_s * 1e6) + index * 1000, device, 0, 1, 1_772_366_400, 151)
    return batch


def test_a_query_finds_one_box_within_a_time(tmp_path: Path) -> None:
    """With stream, number and bytes; other boxes and other times are left out."""
    writer = AsRunWriter(tmp_path / "0xFFF00001-1", keep_days=90, keep_bytes=1 << 30)
    for second in range(5):
        writer.write(batch_of(11, 22, 33, at_s=second))
    writer.write(batch_of(44, at_s=5))
    writer.close()
    found = list(query(tmp_path, 22, NOON + timedelta(seconds=1), NOON + timedelta(seconds=3)))
    assert [record.aired_at for record in found] == [
        NOON + timedelta(seconds=second, milliseconds=1) for second in (1, 2)
    ]
    assert found[0][1:] == ("0xFFF00001:1", 22, 0, 1, 1_772_366_400, 151)
    assert len(list(query(tmp_path))) == 16
    assert list(query(tmp_path, 55)) == []


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1 << 52),
            st.integers(1, (1 << 40) - 1),
            st.integers(0, 1 << 60),
            st.integers(1, 255),
            st.integers(0, (1 << 32) - 1),
            st.integers(3, 256),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_a_block_gives_back_every_record(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[int, ...]]
) -> None:
    """Whatever the values."""
    batch = Batch()
    for record in records:
        batch.add(*record)
    path = tmp_path_factory.mktemp("block") / "one.asrun"
    path.write_bytes(batch.encode())
    with path.open("rb") as file:
        found = [tuple(record) for block in _blocks(file, None, 0, 1 << 62) for record in block]
    assert found == records


def test_a_block_torn_by_a_crash_is_skipped(tmp_path: Path) -> None:
    """The blocks before it and the files after it are read."""
    writer = AsRunWriter(tmp_path / "s", 90, 1 << 30)
    writer.write(batch_of(1))
    writer.write(batch_of(2, at_s=1))
    writer.close()
    (file,) = (tmp_path / "s").iterdir()
    os.truncate(file, file.stat().st_size - 3)
    again = AsRunWriter(tmp_path / "s", 90, 1 << 30)
    again.write(batch_of(3, at_s=2))
    again.close()
    assert [record.device_id for record in query(tmp_path)] == [1, 3]


def test_the_oldest_files_are_evicted_and_named(tmp_path: Path) -> None:
    """By size and by days; the newest stays whatever its size."""
    directory = tmp_path / "s"
    writer = AsRunWriter(directory, keep_days=90, keep_bytes=1)
    assert writer.write(batch_of(1)) == []
    (first,) = directory.iterdir()
    assert writer.write(batch_of(2, at_s=3600)) == [first]
    assert writer.evicted == 1
    writer.close()
    by_age = AsRunWriter(directory, keep_days=1, keep_bytes=1 << 30)
    (second,) = directory.iterdir()
    yesterday = (NOON - timedelta(days=2)).timestamp()
    os.utime(second, (yesterday, yesterday))
    assert by_age.write(batch_of(3, at_s=7200)) == [second]
    by_age.close()
    assert [record.device_id for record in query(tmp_path)] == [3]


def test_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    """And the next write tries anew."""
    (tmp_path / "file").write_text("in the way")
    writer = AsRunWriter(tmp_path / "file", 90, 1 << 30)
    with pytest.raises(AsRunError, match="file"):
        writer.write(batch_of(1))
    (tmp_path / "file").unlink()
    writer.write(batch_of(1))
    writer.close()
    assert len(list(query(tmp_path, 1))) == 1
