"""The as-run log: what was handed to the multiplexer, and when (docs/carousel.md).

A file is a row of blocks, each complete in itself: a header with the times
it spans and a CRC, the sorted devices in it, and its columns as compressed
deltas. A block torn by a crash is skipped; every start begins a new file.
"""

import struct
import threading
import zlib
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from portcullis.cycler.errors import AsRunError

SUFFIX = ".asrun"
MAX_FILE_BYTES = 64 << 20
MAX_UNWRITTEN = 4_000_000  # records kept while the disk refuses them
_MAGIC = b"PAR1"
_HEADER = struct.Struct("<4sIqqIII")  # magic, records, first µs, last µs, index and data size, CRC
_COLUMNS = ("time", "device", "message", "part", "number", "size")
_CLOCK_SLACK_US = 600_000_000  # between the file system's clock and the database's
_FILE_NAME = "%Y%m%dT%H%M%S%fZ"


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
    """Transmissions not written yet, by column."""

    def __init__(self) -> None:
        self.columns = {name: array("q") for name in _COLUMNS}

    def __len__(self) -> int:
        return len(self.columns["time"])

    def add(self, *values: int) -> None:
        """Note one transmission: microseconds since 1970, device, message, part, number, size."""
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)

    def extend(self, later: "Batch") -> None:
        """Append what came later."""
        for name, column in self.columns.items():
            column.extend(later.columns[name])

    def encode(self) -> bytes:
        """One block."""
        columns = {name: np.frombuffer(column, np.int64) for name, column in self.columns.items()}
        index = zlib.compress(_deltas(np.unique(columns["device"])), 1)
        data = zlib.compress(b"".join(_deltas(column) for column in columns.values()), 1)
        times = columns["time"]
        span = int(times.min()), int(times.max())
        crc = zlib.crc32(data, zlib.crc32(index))
        head = _HEADER.pack(_MAGIC, len(self), *span, len(index), len(data), crc)
        return head + index + data


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
        self._file: BinaryIO | None = None
        self._hour = ""
        self._lock = threading.Lock()

    def write(self, batch: Batch) -> list[Path]:
        """Append one block; returns the files evicted. Raises AsRunError: nothing was kept."""
        with self._lock:  # a write given up at a stop may still be under way
            return self._write(batch)

    def _write(self, batch: Batch) -> list[Path]:
        block = batch.encode()
        begun = datetime.fromtimestamp(batch.columns["time"][0] / 1e6, UTC)
        hour = begun.strftime("%Y%m%dT%H")
        try:
            evicted = []
            if self._file is None or hour != self._hour or self._file.tell() > MAX_FILE_BYTES:
                self.close()
                self._directory.mkdir(parents=True, exist_ok=True)
                name = begun.strftime(_FILE_NAME) + SUFFIX
                self._file = (self._directory / name).open("ab")
                self._hour = hour
                evicted = self._evict(begun)
            self._file.write(block)
            self._file.flush()
        except OSError as error:
            self._abandon()
            raise AsRunError(f"{self._directory}: {error.strerror}") from error
        return evicted

    def close(self) -> None:
        """Close the file, if one is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _abandon(self) -> None:
        """Leave a file that may end in a torn block."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                return  # what it could not write is written again, into another file

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
        for file in sorted(stream.glob(f"*{SUFFIX}")):
            # A file last written before `since` holds nothing that is asked for.
            try:
                if file.stat().st_mtime * 1e6 < first_us - _CLOCK_SLACK_US:
                    continue
                with file.open("rb") as opened:
                    for records in _blocks(opened, device_id, first_us, last_us):
                        for values in records:
                            yield _record(stream.name, values)
            except FileNotFoundError:
                continue  # evicted meanwhile
            except OSError as error:
                raise AsRunError(f"{file}: {error.strerror}") from error


def _record(directory_name: str, values: list[int]) -> AsRunRecord:
    aired_at = datetime.fromtimestamp(values[0] / 1e6, UTC)
    return AsRunRecord(aired_at, directory_name.replace("-", ":"), *values[1:])


def _blocks(
    file: BinaryIO, device_id: int | None, first_us: int, last_us: int
) -> Iterator[list[list[int]]]:
    """The matching records of each block; ends at the first torn block."""
    while len(head := file.read(_HEADER.size)) == _HEADER.size:
        magic, count, begins, ends, index_size, data_size, crc = _HEADER.unpack(head)
        if magic != _MAGIC:
            return
        if ends < first_us or begins > last_us:
            file.seek(index_size + data_size, 1)
            continue
        index, data = file.read(index_size), file.read(data_size)
        if len(data) < data_size or zlib.crc32(data, zlib.crc32(index)) != crc:
            return
        if device_id is not None and device_id not in _values(zlib.decompress(index)):
            continue
        deltas = np.frombuffer(zlib.decompress(data), "<i8").reshape(len(_COLUMNS), count)
        records = np.cumsum(deltas, axis=1)
        wanted = (records[0] >= first_us) & (records[0] <= last_us)
        if device_id is not None:
            wanted &= records[1] == device_id
        yield records[:, wanted].T.tolist()


def _deltas(values: NDArray[np.int64]) -> bytes:
    return np.diff(values, prepend=0).astype("<i8").tobytes()


def _values(deltas: bytes) -> NDArray[np.int64]:
    return np.cumsum(np.frombuffer(deltas, "<i8"))
