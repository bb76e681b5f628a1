"""Numbers by slot in memory that grows in place: what is not used yet costs nothing. Pure."""

import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Column:
    """Rows of one type, zero until written.

    Attributes:
        rows: all there are room for. Take it anew after `reserve`; a view that is kept makes
            `reserve` fail.
    """

    def __init__(self, dtype: DTypeLike, width: int | None = None) -> None:
        """Prepare a column of single values, or of rows of `width` values."""
        self._dtype = np.dtype(dtype)
        self._shape: tuple[int, ...] = (-1,) if width is None else (-1, width)
        self._row_bytes = self._dtype.itemsize * (1 if width is None else width)
        self._memory: mmap.mmap | None = None
        self.rows: NDArray[Any] = np.empty(0, self._dtype).reshape(self._shape)

    def reserve(self, rows: int) -> None:
        """Make room for `rows` rows at least; the memory moves, its content stays."""
        if rows <= len(self.rows):
            return
        rows = max(rows, len(self.rows) * 5 // 4, 256)
        self.rows = self.rows[:0].copy()
        if self._memory is None:
            self._memory = mmap.mmap(-1, rows * self._row_bytes, flags=_PRIVATE)
        else:
            self._memory.resize(rows * self._row_bytes)
        self.rows = np.frombuffer(self._memory, self._dtype).reshape(self._shape)

    def give_back(self, start: int, stop: int) -> None:
        """Have rows cost nothing until they are written again; what they hold is lost."""
        first = -(-start * self._row_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        end = min(stop, len(self.rows)) * self._row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        if self._memory is not None and end > first:
            self._memory.madvise(mmap.MADV_DONTNEED, first, end - first)
