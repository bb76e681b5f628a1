"""One block of the as-run log: records by device, in chunks a query can open alone. Pure.

docs/carousel.md has the layout. All numbers are little-endian.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from portcullis.cycler.arena import Headers
from portcullis.cycler.records import chosen

MAGIC = b"PAR2"
RECORD = np.dtype(
    [
        ("time", "<i8"),  # microseconds since 1970 (UTC)
        ("device", "<u8"),
        ("number", "<u4"),
        ("size", "<u2"),
        ("part", "u1"),
        ("is_message", "u1"),
    ]
)
AsRunRecords = NDArray[Any]
Aired = tuple[int, Headers, int, int]
"""When EMMs were aired, in microseconds since 1970; and which: of these, from where to where."""

_CHUNK = 4096  # records
_HEADER = struct.Struct("<4sIqqIIQI")
_DIRECTORY = np.dtype([("first", "<u8"), ("last", "<u8"), ("bytes", "<u4"), ("crc", "<u4")])
_COLUMN = struct.Struct("<Bqq")  # width and _IS_DELTA, what was taken off, the first value
_IS_DELTA = 0x80
_PLACE_BITS = 23
_LEVEL = 1  # of zlib: more costs more than it saves


class TornBlockError(Exception):
    """The block is not whole: a crash cut it, or the disk has lost part of it."""


class BlockHeader(NamedTuple):
    """What a block says before it is opened.

    Attributes:
        records: how many.
        first_us, last_us: the span of their times.
        size: bytes of the whole block.
    """

    records: int
    first_us: int
    last_us: int
    size: int
    chunks: int
    times_bytes: int


def records_of(aired: Sequence[Aired]) -> AsRunRecords:
    """The records of EMMs, in the order in which they were aired."""
    runs: list[tuple[Headers, int, int]] = []
    for _, headers, start, stop in aired:
        begin = start
        if runs and runs[-1][0] is headers and runs[-1][2] == start:
            begin = runs.pop()[1]
        runs.append((headers, begin, stop))
    columns = zip(*(headers.some(start, stop) for headers, start, stop in runs), strict=True)
    joined = Headers(*(np.concatenate(column) for column in columns))
    times = np.array([time_us for time_us, _, _, _ in aired], np.int64)
    records = np.empty(len(joined.raw), RECORD)
    records["time"] = times.repeat([stop - start for _, _, start, stop in aired])
    records["device"] = joined.device
    records["number"] = joined.number
    records["size"] = joined.size
    records["part"] = joined.part
    records["is_message"] = joined.is_message
    return records


def encode(records: AsRunRecords) -> bytes:
    """One block of at least one record."""
    times, place = _places(records["time"])
    order = _by_device(records["device"])
    records = chosen(records, order)
    columns = (
        records["device"].astype(np.int64),
        place[order],
        records["number"].astype(np.int64),
        records["size"].astype(np.int64),
        records["part"].astype(np.int64) << 1 | records["is_message"],
    )
    packed = list(zip(*map(_pack, columns), strict=True))
    chunks = [zlib.compress(b"".join(parts), _LEVEL) for parts in packed]
    starts = np.arange(0, len(records), _CHUNK)
    directory = np.empty(len(chunks), _DIRECTORY)
    directory["first"] = columns[0][starts]
    directory["last"] = columns[0][np.append(starts[1:], len(records)) - 1]
    directory["bytes"] = [len(chunk) for chunk in chunks]
    directory["crc"] = [zlib.crc32(chunk) for chunk in chunks]
    packed_times = len(times).to_bytes(4, "little") + zlib.compress(
        b"".join(_pack_rows(times[np.newaxis])), _LEVEL
    )
    span = int(times[0]), int(times[-1])
    data = sum(map(len, chunks))
    index = directory.tobytes() + packed_times
    fields = (MAGIC, len(records), *span, len(directory), len(packed_times), data)
    head = _HEADER.pack(*fields, 0)[:-4]
    crc = zlib.crc32(index, zlib.crc32(head)).to_bytes(4, "little")
    return b"".join((head, crc, index, *chunks))


def _places(moments: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different times, and which of them each is: of many records one behind the other."""
    starts = np.concatenate([[0], (moments[1:] != moments[:-1]).nonzero()[0] + 1])
    times, which = np.unique(moments[starts], return_inverse=True)
    return times, which.repeat(np.diff(starts, append=len(moments)))


def _by_device(devices: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The order of the devices, 40 bits each, and of their places; no place above 2^23."""
    place = np.arange(len(devices))
    keys = devices.astype(np.int64) << _PLACE_BITS | place
    keys.sort()
    keys &= (1 << _PLACE_BITS) - 1
    return keys


def read_header(data: memoryview) -> BlockHeader:
    """The header of the block that `data` begins with; raises TornBlockError."""
    if len(data) < _HEADER.size:
        raise TornBlockError
    magic, records, first, last, chunks, times_bytes, chunk_bytes, crc = _HEADER.unpack_from(data)
    index = chunks * _DIRECTORY.itemsize + times_bytes
    size = _HEADER.size + index + chunk_bytes
    head = data[: _HEADER.size - 4]
    if magic != MAGIC or size > len(data):
        raise TornBlockError
    if zlib.crc32(data[_HEADER.size : _HEADER.size + index], zlib.crc32(head)) != crc:
        raise TornBlockError
    return BlockHeader(records, first, last, size, chunks, times_bytes)


def read_records(
    data: memoryview, header: BlockHeader, device_id: int | None
) -> Iterator[AsRunRecords]:
    """The records of a block, or those of one device; raises TornBlockError."""
    at = _HEADER.size
    directory = np.frombuffer(data, _DIRECTORY, header.chunks, at)
    at += header.chunks * _DIRECTORY.itemsize
    packed_times = data[at : at + header.times_bytes]
    starts = at + header.times_bytes + np.cumsum(directory["bytes"]) - directory["bytes"]
    wanted = np.arange(header.chunks)
    if device_id is not None:
        wanted = np.flatnonzero(
            (directory["first"] <= device_id) & (device_id <= directory["last"])
        )
    for number in wanted.tolist():
        start = int(starts[number])
        chunk = data[start : start + int(directory["bytes"][number])]
        if zlib.crc32(chunk) != directory["crc"][number]:
            raise TornBlockError
        count = min(_CHUNK, header.records - number * _CHUNK)
        columns = _unpack(zlib.decompress(chunk), [count] * 5)
        mine = slice(None) if device_id is None else np.flatnonzero(columns[0] == device_id)
        device, place, number_, size, part = (column[mine] for column in columns)
        if not len(device):
            continue
        (times,) = _unpack(
            zlib.decompress(packed_times[4:]), [int.from_bytes(packed_times[:4], "little")]
        )
        records = np.empty(len(device), RECORD)
        records["time"] = times[place]
        records["device"], records["number"], records["size"] = device, number_, size
        records["part"], records["is_message"] = part >> 1, part & 1
        yield records


def _pack(values: NDArray[np.int64]) -> list[bytes]:
    """A column, chunk by chunk."""
    whole = len(values) // _CHUNK * _CHUNK
    packed = list(_pack_rows(values[:whole].reshape(-1, _CHUNK))) if whole else []
    if whole < len(values):
        packed += _pack_rows(values[np.newaxis, whole:])
    return packed


def _pack_rows(values: NDArray[np.int64]) -> Iterator[bytes]:
    """Rows, each as it is or as differences, whichever says less; bytes by significance."""
    first, base = values[:, 0].copy(), values.min(1)
    plain = values - base[:, np.newaxis]
    differences = np.zeros_like(values)
    np.subtract(values[:, 1:], values[:, :-1], out=differences[:, 1:])
    lowest = differences.min(1)
    differences -= lowest[:, np.newaxis]
    is_delta = differences.sum(1) < plain.sum(1)
    offsets = np.where(is_delta, lowest, base).tolist()
    columns = (is_delta.tolist(), offsets, first.tolist())
    for number, (delta, offset, begin) in enumerate(zip(*columns, strict=True)):
        taken = differences[number] if delta else plain[number]
        width = (int(taken.max()).bit_length() + 7) // 8
        planes = taken.view(np.uint8).reshape(-1, 8)[:, :width].T
        yield _COLUMN.pack(width | (_IS_DELTA if delta else 0), offset, begin) + planes.tobytes()


def _unpack(data: bytes, counts: Sequence[int]) -> list[NDArray[np.int64]]:
    """Columns of so many values, one behind the other."""
    columns, at = [], 0
    for count in counts:
        flags, base, first = _COLUMN.unpack_from(data, at)
        at += _COLUMN.size
        width = flags & ~_IS_DELTA
        values = np.zeros((count, 8), np.uint8)
        values[:, :width] = np.frombuffer(data, np.uint8, width * count, at).reshape(width, count).T
        at += width * count
        column = values.view("<i8")[:, 0] + base
        columns.append(first + np.cumsum(column) if flags & _IS_DELTA else column)
    return columns
