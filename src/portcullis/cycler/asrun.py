"""The as-run log: what was handed to the multiplexer, and when (docs/carousel.md).

Each second's records go into a journal, so that a crash loses no more than the last; many of
them make a block of a file, by device, and the journal begins anew. A block torn by a crash is
skipped, and its records are still in the journal; every start begins a new file.
"""

import errno
import fcntl
import mmap
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from portcullis.cycler.arena import Headers
from portcullis.cycler.asrun_block import (
    RECORD,
    Aired,
    AsRunRecords,
    BlockHeader,
    TornBlockError,
    encode,
    read_header,
    read_records,
    records_of,
)
from portcullis.cycler.errors import AsRunError
from portcullis.cycler.records import joined

SUFFIX = ".asrun"
JOURNAL_SUFFIX = ".journal"
MAX_FILE_BYTES = 64 << 20
MAX_UNWRITTEN = 4_000_000  # records kept while the disk refuses them
BLOCK_RECORDS = 1 << 17
BLOCK_US = 300_000_000
_CLOCK_SLACK_US = 600_000_000  # between the file system's clock and the database's
_FILE_NAME = "%Y%m%dT%H%M%S%fZ"
_CRC_BYTES = 4


class AsRunRecord(NamedTuple):
    """One transmission; `size` in bytes of the section."""

    aired_at: datetime
    stream: str
    device_id: int
    message_id: int
    part: int
    number: int
    size: int


class Batch:
    """Transmissions not written yet, in order."""

    def __init__(self) -> None:
        self._pieces: list[AsRunRecords] = []
        self._aired: list[Aired] = []  # behind them, not made into records yet
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def begun_us(self) -> int:
        """The time of the first; there is one."""
        return int(self._pieces[0]["time"][0]) if self._pieces else self._aired[0][0]

    def add(self, time_us: int, headers: Headers, start: int, stop: int) -> None:
        """Note that these were aired at one time, microseconds since 1970."""
        self._aired.append((time_us, headers, start, stop))
        self._count += stop - start

    def append(self, records: AsRunRecords) -> None:
        """Note transmissions."""
        self._make()
        if len(records):
            self._pieces.append(records)
            self._count += len(records)

    def records(self) -> AsRunRecords:
        """All of them."""
        self._make()
        if len(self._pieces) > 1:
            self._pieces = [joined(self._pieces)]
        return self._pieces[0] if self._pieces else np.empty(0, RECORD)

    def _make(self) -> None:
        if self._aired:
            self._pieces.append(records_of(self._aired))
            self._aired = []


class AsRunWriter:
    """Writes one stream's log, and keeps it within its bounds.

    Attributes:
        evicted: files removed so far because of age or size.
    """

    def __init__(self, directory: Path, keep_days: int, keep_bytes: int) -> None:
        self.evicted = 0
        self._directory = directory
        self._keep_days = keep_days
        self._keep_bytes = keep_bytes
        self._file: FileIO | None = None
        self._hour = ""
        self._journal: FileIO | None = None
        self._pending = Batch()  # in the journal, but in no block
        self._lock = threading.Lock()

    def write(self, batch: Batch) -> list[Path]:
        """Take a batch; returns the files evicted. Raises AsRunError: it was not taken."""
        with self._lock:  # a write given up at a stop may still be under way
            try:
                if self._journal is None:
                    self._open_journal(batch.begun_us)
                evicted = self._write_block() if self._is_due(batch) else []
                self._note(batch)
            except OSError as error:
                raise AsRunError(f"{self._directory}: {error.strerror}") from error
        return evicted

    def close(self) -> None:
        """Make a block of what is only in the journal, and close.

        If that fails the journal stays, for the next start to take over.
        """
        with self._lock:
            with suppress(OSError):
                if len(self._pending):
                    self._write_block(evicts=False)
                if self._journal is not None:
                    Path(self._journal.name).unlink()
            for file in (self._file, self._journal):
                if file is not None:
                    file.close()
            self._file = self._journal = None

    def _is_due(self, batch: Batch) -> bool:
        """Whether what is pending makes a block before `batch` is taken."""
        if not len(self._pending):
            return False
        begun = self._pending.begun_us
        now = int(batch.records()["time"][-1])
        other_hour = _at(begun).hour != _at(now).hour
        return len(self._pending) >= BLOCK_RECORDS or now - begun >= BLOCK_US or other_hour

    def _note(self, batch: Batch) -> None:
        """Put a batch into the journal."""
        assert self._journal is not None  # noqa: S101 (`write` has opened it)
        end = self._journal.seek(0, os.SEEK_END)
        try:
            _write_all(self._journal, _journal_entry(batch.records()))
        except OSError:
            self._journal.truncate(end)  # what follows shall not stand behind half an entry
            raise
        self._pending.append(batch.records())

    def _write_block(self, *, evicts: bool = True) -> list[Path]:
        """Make a block of what is pending, and begin the journal anew."""
        assert self._journal is not None  # noqa: S101 (what is pending is in it)
        records = self._pending.records()
        begun = _at(int(records["time"][0]))
        evicted: list[Path] = []
        hour = begun.strftime("%Y%m%dT%H")
        end: int | None = None
        try:
            if self._file is None or hour != self._hour or self._file.tell() > MAX_FILE_BYTES:
                if self._file is not None:
                    self._file.close()
                name = begun.strftime(_FILE_NAME) + SUFFIX
                self._file = (self._directory / name).open("ab", buffering=0)
                self._hour = hour
                evicted = self._evict(begun) if evicts else []
            end = self._file.tell()
            _write_all(self._file, encode(records))
        except OSError:
            self._abandon(end)
            raise
        self._pending = Batch()
        self._journal.truncate(0)
        return evicted

    def _abandon(self, end: int | None) -> None:
        """Leave the file without half a block at its end, which would hide what comes after it."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                if end is not None:
                    file.truncate(end)
                file.close()

    def _open_journal(self, first_us: int) -> None:
        """Begin a journal, with what a process that died has left in its own."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / (_at(first_us).strftime(_FILE_NAME) + JOURNAL_SUFFIX)
        orphans = [one for one in sorted(self._directory.glob(f"*{JOURNAL_SUFFIX}")) if one != path]
        self._journal = path.open("ab", buffering=0)
        fcntl.flock(self._journal, fcntl.LOCK_EX)
        written = _last_header(self._directory)
        for orphan in orphans:
            with orphan.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # another process writes it
                left = Batch()
                left.append(_journal_records(file.read()))
                if len(left) and not _is_in(left.records(), written):
                    self._note(left)
                orphan.unlink()

    def _evict(self, now: datetime) -> list[Path]:
        """Remove the oldest files beyond the days and bytes to keep, never the newest."""
        files = sorted(self._directory.glob(f"*{SUFFIX}"))
        total = sum(file.stat().st_size for file in files)
        evicted = []
        for file in files[:-1]:
            age = now - datetime.fromtimestamp(file.stat().st_mtime, UTC)
            if total <= self._keep_bytes and age.days < self._keep_days:
                break
            total -= file.stat().st_size
            file.unlink()
            evicted.append(file)
        self.evicted += len(evicted)
        return evicted


def query(
    directory: Path,
    device_id: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[AsRunRecord]:
    """What was aired, stream by stream, oldest first.

    Args:
        directory: `asrun_dir`.
        device_id: of one box only; None: of all.
        since, until: aware; `since <= aired_at < until`.

    Raises AsRunError if a file cannot be read.
    """
    first_us = 0 if since is None else int(since.timestamp() * 1e6)
    last_us = (1 << 62) if until is None else int(until.timestamp() * 1e6) - 1
    for stream in sorted(path for path in directory.glob("*") if path.is_dir()):
        name = stream.name.replace("-", ":")
        for records in _stream_records(stream, device_id, first_us, last_us):
            wanted = (records["time"] >= first_us) & (records["time"] <= last_us)
            if device_id is not None:
                wanted &= records["device"] == device_id
            found = records[wanted]
            for record in found[np.argsort(found["time"], kind="stable")].tolist():
                yield _record(name, record)


def _stream_records(
    stream: Path, device_id: int | None, first_us: int, last_us: int
) -> Iterator[AsRunRecords]:
    """Records among which all those asked for are, block by block."""
    journals = [_journal_records(data) for _, data in _contents(stream, JOURNAL_SUFFIX, 0)]
    newest: BlockHeader | None = None
    for file, data in _contents(stream, SUFFIX, first_us - _CLOCK_SLACK_US):
        with memoryview(data) as view:
            for at, header in _headers(view):
                newest = header
                if header.last_us < first_us or header.first_us > last_us:
                    continue
                try:
                    with view[at:] as block:
                        pieces = list(read_records(block, header, device_id))
                except TornBlockError as error:
                    raise AsRunError(f"{file}: a block at {at} is damaged") from error
                if pieces:
                    yield np.concatenate(pieces)
    for records in journals:  # read first: what has become a block since is in `newest`
        if len(records) and not _is_in(records, newest):
            yield records


def _contents(
    stream: Path, suffix: str, since_us: int
) -> Iterator[tuple[Path, "bytes | mmap.mmap"]]:
    """The files of a kind that were written since, with what they hold."""
    for path in sorted(stream.glob(f"*{suffix}")):
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_size and stat.st_mtime * 1e6 >= since_us:
                    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
                        yield path, data
        except FileNotFoundError:
            continue  # evicted meanwhile
        except OSError as error:
            raise AsRunError(f"{path}: {error.strerror}") from error


def _headers(data: memoryview) -> Iterator[tuple[int, BlockHeader]]:
    """The blocks of a file: place and header; ends at the first torn one."""
    at = 0
    while at < len(data):
        try:
            with data[at:] as rest:
                header = read_header(rest)
        except TornBlockError:
            return
        yield at, header
        at += header.size


def _last_header(directory: Path) -> BlockHeader | None:
    """The header of the last block of the newest file."""
    header = None
    for file in sorted(directory.glob(f"*{SUFFIX}"))[-1:]:
        with memoryview(file.read_bytes()) as data:
            for _, header in _headers(data):  # noqa: B007 (the last is wanted)
                pass
    return header


def _is_in(records: AsRunRecords, block: BlockHeader | None) -> bool:
    """Whether what a journal holds is what that block holds."""
    span = int(records["time"].min()), int(records["time"].max())
    return block is not None and (block.first_us, block.last_us) == span


def _journal_entry(records: AsRunRecords) -> bytes:
    """Length 4, CRC-32 of length and records 4, records."""
    data = records.tobytes()
    head = len(data).to_bytes(4, "little")
    return head + zlib.crc32(data, zlib.crc32(head)).to_bytes(4, "little") + data


def _journal_records(data: "bytes | mmap.mmap") -> AsRunRecords:
    """The records of a journal up to the first entry that is not whole."""
    pieces, at = [np.empty(0, RECORD)], 0
    while head := data[at : at + 4]:
        size = int.from_bytes(head, "little")
        start = at + 4 + _CRC_BYTES
        entry = data[start : start + size]
        crc = int.from_bytes(data[at + 4 : start], "little")
        if len(entry) < size or zlib.crc32(entry, zlib.crc32(head)) != crc:
            break
        pieces.append(np.frombuffer(entry, RECORD))
        at = start + size
    return joined(pieces)


def _write_all(file: FileIO, data: bytes) -> None:
    """Write all of it; raises OSError if the disk takes only a part."""
    if file.write(data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _at(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us / 1e6, UTC)


def _record(stream: str, fields: tuple[int, ...]) -> AsRunRecord:
    time_us, device_id, number, size, part, is_message = fields
    message_id = number if is_message else 0
    return AsRunRecord(_at(time_us), stream, device_id, message_id, part, number, size)
