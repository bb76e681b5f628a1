"""First in, first out, in records of a few bytes: push, pop and look up cost O(1). Pure.

A record's ticket is its place in the order of arrival. Records are not taken
out of the middle: whoever owns the queue knows by the ticket which are stale.
"""

import numpy as np
from numpy.typing import DTypeLike

from portcullis.cycler.records import Records, chosen, joined, put

_CHUNK = 4096


class Queue:
    """Records of one dtype, in chunks that come and go.

    Attributes:
        head: ticket of the oldest record.
        tail: ticket of the next record to come.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self.head = 0
        self.tail = 0
        self._dtype = np.dtype(dtype)
        self._chunks: dict[int, Records] = {}

    def __len__(self) -> int:
        return self.tail - self.head

    def push(self, records: Records) -> int:
        """Put records behind the others; returns the ticket of the first."""
        first, at = self.tail, 0
        self.tail += len(records)
        while at < len(records):
            number, offset = divmod(first + at, _CHUNK)
            if (chunk := self._chunks.get(number)) is None:
                chunk = self._chunks[number] = np.empty(_CHUNK, self._dtype)
            count = min(_CHUNK - offset, len(records) - at)
            put(chunk, offset, records[at : at + count])
            at += count
        return first

    def peek(self, skip: int, count: int) -> Records:
        """A copy of up to `count` records behind the `skip` oldest."""
        at, end = self.head + skip, min(self.head + skip + count, self.tail)
        number, offset = divmod(at, _CHUNK)
        if at < end <= at - offset + _CHUNK:
            return chosen(self._chunks[number], slice(offset, offset + end - at))
        pieces = [np.empty(0, self._dtype)]
        while at < end:
            number, offset = divmod(at, _CHUNK)
            piece = self._chunks[number][offset : min(_CHUNK, offset + end - at)]
            pieces.append(piece)
            at += len(piece)
        return joined(pieces)

    def drop(self, count: int) -> None:
        """Forget the `count` oldest."""
        before = self.head // _CHUNK
        self.head += count
        for number in range(before, self.head // _CHUNK):
            del self._chunks[number]

    def record(self, ticket: int) -> Records:
        """The one record with this ticket, to be read and changed in place."""
        number, offset = divmod(ticket, _CHUNK)
        return self._chunks[number][offset : offset + 1]

    def everything(self) -> Records:
        """A copy of all records, oldest first."""
        return self.peek(0, len(self))

    def lower(self, field: str, by: int) -> None:
        """Take `by` off a field of every record, to no less than 0."""
        for chunk in self._chunks.values():
            values = chunk[field]
            chunk[field] = values - np.minimum(values, by)

    def clear(self) -> None:
        """Forget all."""
        self._chunks.clear()
        self.head = self.tail
