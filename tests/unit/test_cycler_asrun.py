"""The as-run log answers for what was aired."""

import os
import resource
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portcullis.cycler import asrun
from portcullis.cycler.arena import Headers
from portcullis.cycler.asrun import AsRunWriter, Batch, query
from portcullis.cycler.asrun_block import (
    RECORD,
    TornBlockError,
    encode,
    read_header,
    read_records,
)
from portcullis.cycler.errors import AsRunError
from tests.unit.cycler_emms import section_of

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NOON_US = int(NOON.timestamp() * 1e6)
NUMBER = 1_772_366_400


def headers_of(*devices: int, message: int = 0, part: int = 1) -> Headers:
    """What the headers of some EMMs say, 151 bytes each."""
    place = 0x11 if message else part << 4 | part
    sections = [
        section_of(device, message or NUMBER, 151, place, message=bool(message))[:16]
        for device in devices
    ]
    raw = np.frombuffer(b"".join(sections), np.uint8).reshape(-1, 16)
    kind = 151 | (0x200 if message else 0)
    count = len(devices)
    return Headers(raw, np.full(count, kind, np.uint16), np.full(count, part, np.uint8))


def batch_of(*devices: int, at_s: float = 0.0) -> Batch:
    """One airing per device, a millisecond apart."""
    batch = Batch()
    for index, device in enumerate(devices):
        batch.add(NOON_US + int(at_s * 1e6) + index * 1000, headers_of(device), 0, 1)
    return batch


def writer_of(directory: Path, keep_days: int = 90, keep_bytes: int = 1 << 30) -> AsRunWriter:
    """A writer that keeps nearly everything."""
    return AsRunWriter(directory, keep_days, keep_bytes)


@pytest.mark.parametrize("in_blocks", [False, True])
def test_a_query_finds_one_box_within_a_time(tmp_path: Path, *, in_blocks: bool) -> None:
    """With stream, number and bytes; other boxes and times are left out; from journal or blocks."""
    writer = writer_of(tmp_path / "0xFFF00001-1")
    for second in range(5):
        writer.write(batch_of(11, 22, 33, at_s=second))
    writer.write(batch_of(44, at_s=5))
    if in_blocks:
        writer.close()
    assert bool(list(tmp_path.rglob("*.journal"))) is not in_blocks
    found = list(query(tmp_path, 22, NOON + timedelta(seconds=1), NOON + timedelta(seconds=3)))
    assert [record.aired_at for record in found] == [
        NOON + timedelta(seconds=second, milliseconds=1) for second in (1, 2)
    ]
    assert found[0][1:] == ("0xFFF00001:1", 22, 0, 1, NUMBER, 151)
    everything = list(query(tmp_path))
    assert [record.device_id for record in everything] == [11, 22, 33] * 5 + [44]
    assert list(query(tmp_path, 55)) == []
    writer.close()


def test_a_message_is_told_from_a_state(tmp_path: Path) -> None:
    """By its id, and its segment by the part."""
    writer = writer_of(tmp_path / "s")
    batch = Batch()
    batch.add(NOON_US, headers_of(7), 0, 1)
    batch.add(NOON_US, headers_of(7, message=99, part=3), 0, 1)
    writer.write(batch)
    writer.close()
    found = [(one.message_id, one.part, one.number) for one in query(tmp_path, 7)]
    assert found == [(0, 1, NUMBER), (99, 3, 99)]


records = st.lists(
    st.tuples(
        st.integers(0, 1 << 52),
        st.one_of(st.integers(1, 9), st.integers(1, (1 << 40) - 1)),
        st.integers(0, (1 << 32) - 1),
        st.integers(3, 256),
        st.integers(0, 255),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=40,
)


@given(records, st.integers(1, 300))
def test_a_block_gives_back_every_record(rows: list[tuple[int, ...]], times: int) -> None:
    """Whatever the values, in one chunk or several; and those of one device alone."""
    block = np.array(rows * times, RECORD)
    data = memoryview(encode(block))
    header = read_header(data)
    assert (header.records, header.size) == (len(block), len(data))
    assert (header.first_us, header.last_us) == (block["time"].min(), block["time"].max())
    found = np.concatenate(list(read_records(data, header, None)))
    assert sorted(found.tolist()) == sorted(block.tolist())
    device = rows[0][1]
    mine = [row for piece in read_records(data, header, device) for row in piece.tolist()]
    assert mine == [row for row in block.tolist() if row[1] == device]


def test_many_records_take_few_bytes() -> None:
    """A million boxes in the order of a ring that orders have mixed, sealed over a day."""
    rng = np.random.default_rng(1)
    block = np.empty(100_000, RECORD)
    block["time"] = NOON_US + np.arange(100_000) // 7 * 10_000
    block["device"] = rng.permutation(1_000_000)[:100_000] + 1
    block["number"] = NUMBER + rng.integers(0, 86_400, 100_000)
    block["size"] = rng.choice([86, 109, 132, 155, 178], 100_000)
    block["part"], block["is_message"] = 1, 0
    assert len(encode(block)) / len(block) < 6


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_block_is_never_read_as_a_whole_one(byte: int, flip: int) -> None:
    """Wherever the damage is."""
    block = np.zeros(3, RECORD)
    block["device"] = (5, 6, 7)
    data = bytearray(encode(block))
    data[byte % len(data)] ^= flip
    view = memoryview(bytes(data))
    with pytest.raises(TornBlockError):
        list(read_records(view, read_header(view), None))


def test_what_a_crash_leaves_in_the_journal_is_in_the_next_block(tmp_path: Path) -> None:
    """Read as well while nobody has taken it over; half an entry at its end is skipped."""
    code = f"""
import os, sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from tests.unit.test_cycler_asrun import batch_of, writer_of
writer = writer_of(Path({str(tmp_path)!r}) / "s")
writer.write(batch_of(1))
writer.write(batch_of(2, at_s=1))
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    (journal,) = (tmp_path / "s").iterdir()
    with journal.open("ab") as file:
        file.write(b"\x30\0\0\0half of an entry")
    assert [record.device_id for record in query(tmp_path)] == [1, 2]
    again = writer_of(tmp_path / "s")
    again.write(batch_of(3, at_s=2))
    assert not journal.exists()
    assert [record.device_id for record in query(tmp_path)] == [1, 2, 3]
    again.close()
    assert [record.device_id for record in query(tmp_path)] == [1, 2, 3]


def test_the_journal_of_a_process_that_runs_is_left_alone(tmp_path: Path) -> None:
    """Two that air the same stream in turn do not take each other's records."""
    first, second = writer_of(tmp_path / "s"), writer_of(tmp_path / "s")
    first.write(batch_of(1))
    second.write(batch_of(2, at_s=1))
    first.write(batch_of(3, at_s=2))
    first.close()
    second.close()
    assert sorted(record.device_id for record in query(tmp_path)) == [1, 2, 3]


def test_what_became_a_block_before_a_crash_is_not_told_twice(tmp_path: Path) -> None:
    """The block was written, the journal not yet begun anew."""
    writer = writer_of(tmp_path / "s")
    writer.write(batch_of(1, 2))
    (journal,) = (tmp_path / "s").glob("*.journal")
    left = journal.read_bytes()
    writer.close()
    journal.write_bytes(left)
    assert [record.device_id for record in query(tmp_path)] == [1, 2]
    again = writer_of(tmp_path / "s")
    again.write(batch_of(3, at_s=9))
    again.close()
    assert [record.device_id for record in query(tmp_path)] == [1, 2, 3]


def test_a_block_torn_by_a_crash_is_skipped(tmp_path: Path) -> None:
    """The blocks before it and the files after it are read."""
    writer = writer_of(tmp_path / "s")
    writer.write(batch_of(1))
    writer.write(batch_of(2, at_s=301))  # the first becomes a block
    writer.close()
    (file,) = (tmp_path / "s").iterdir()
    os.truncate(file, file.stat().st_size - 3)
    again = writer_of(tmp_path / "s")
    again.write(batch_of(3, at_s=302))
    again.close()
    assert [record.device_id for record in query(tmp_path)] == [1, 3]


def test_a_block_is_made_when_there_is_enough_or_it_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number, by age, and at the end of an hour, with which a file ends."""
    monkeypatch.setattr(asrun, "BLOCK_RECORDS", 3)
    writer = writer_of(tmp_path / "s")

    def blocks() -> int:
        return sum(
            sum(1 for _ in asrun._headers(memoryview(path.read_bytes())))
            for path in (tmp_path / "s").glob("*.asrun")
        )

    made = []
    for at_s in (0, 1, 2, 3, 310, 3600):
        writer.write(batch_of(1, at_s=at_s))
        made.append(blocks())
    assert made == [0, 0, 0, 1, 2, 3]
    writer.close()
    assert len(list((tmp_path / "s").glob("*.asrun"))) == 2
    assert len(list(query(tmp_path))) == 6


def test_the_oldest_files_are_evicted_and_named(tmp_path: Path) -> None:
    """By size and by days; the newest stays whatever its size."""
    directory = tmp_path / "s"
    writer = writer_of(directory, keep_bytes=1)
    assert writer.write(batch_of(1)) == []
    assert writer.write(batch_of(2, at_s=3600)) == []
    (first,) = directory.glob("*.asrun")
    assert writer.write(batch_of(3, at_s=7200)) == [first]
    assert writer.evicted == 1
    writer.close()
    (second, third) = sorted(directory.iterdir())
    by_age = writer_of(directory, keep_days=1)  # a stop evicts nothing: nobody would say so
    yesterday = (NOON - timedelta(days=2)).timestamp()
    for file in (second, third):
        os.utime(file, (yesterday, yesterday))
    by_age.write(batch_of(4, at_s=10_800))
    assert by_age.write(batch_of(5, at_s=14_400)) == [second, third]
    by_age.close()
    assert [record.device_id for record in query(tmp_path)] == [4, 5]


def test_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    """And the next write tries anew."""
    (tmp_path / "file").write_text("in the way")
    writer = writer_of(tmp_path / "file")
    with pytest.raises(AsRunError, match="file"):
        writer.write(batch_of(1))
    (tmp_path / "file").unlink()
    writer.write(batch_of(1))
    writer.close()
    assert len(list(query(tmp_path, 1))) == 1


def test_a_disk_that_is_full_takes_nothing_by_halves(tmp_path: Path) -> None:
    """What was refused can be written again; what was there stays readable."""
    writer = writer_of(tmp_path / "s")
    writer.write(batch_of(1))
    (journal,) = (tmp_path / "s").iterdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 10, hard))
    try:
        with pytest.raises(AsRunError):
            writer.write(batch_of(2, at_s=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    writer.write(batch_of(2, at_s=1))
    assert [record.device_id for record in query(tmp_path)] == [1, 2]
    writer.close()
    assert [record.device_id for record in query(tmp_path)] == [1, 2]
