"""A vendor key file from the RPC's stream to sealed keys, in a thread of its own.

The file is read, decrypted and cut as it comes, so that no more of it is in clear at once than
a few hundred lines.
"""

import asyncio
import io
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

import pyrage

from portcullis.encryptor.custodian import seal_device_key
from portcullis.encryptor.vendorfile import (
    AGE_BEGINNINGS,
    LineCutter,
    VendorLineError,
    parse_line,
)
from portcullis.keys import Custody, ImportKey
from portcullis.runtime.rpc import encryptor_pb2 as pb

_BATCH = 500
_SHARE = 1 << 16
_T = TypeVar("_T")


class ImportFileError(Exception):
    """The file as a whole cannot be read: not encrypted to this head-end, damaged, cut short."""


class Importer:
    """One import. `read` gives the next share of the file, None at its end; `write` answers.

    The sealing itself runs on `executor`, in its turn among the other calls.
    """

    def __init__(
        self,
        custody: Custody,
        import_key: ImportKey,
        executor: Executor,
        read: Callable[[], Coroutine[Any, Any, pb.VendorFile | None]],
        write: Callable[[pb.ImportedKeys], Coroutine[Any, Any, None]],
    ) -> None:
        self._custody, self._import_key = custody, import_key
        self._executor = executor
        self._read, self._write = read, write
        self._loop = asyncio.get_running_loop()
        self._pending: Future[Any] | None = None
        self._failure: Exception | None = None
        self._is_over = False
        self._buffer = b""
        self._bytes = 0
        self._skip_lines: int | None = None
        self._lines = 0
        self._cutter = LineCutter()
        self._waiting: list[tuple[int, bytes]] = []

    async def run(self) -> None:
        """Work until the end of the file.

        Raises ImportFileError, KeyCustodyError, and what `read` and `write` raise.
        """
        try:
            await asyncio.to_thread(self._run)
        finally:
            # A caller that hangs up leaves the thread waiting for it.
            self._is_over = True
            if self._pending is not None:
                self._pending.cancel()

    def _run(self) -> None:
        try:
            if self._peek().startswith(AGE_BEGINNINGS):
                identity = self._import_key.identity()
                pyrage.decrypt_io(_Reader(self._take), _Writer(self._put), [identity])
            else:
                while data := self._take(_SHARE):
                    self._put(data)
            self._put_lines(self._cutter.last())
            self._flush()
        except pyrage.DecryptError as error:
            if self._failure is not None:
                raise self._failure from error
            raise ImportFileError(f"not encrypted to this head-end's recipient: {error}") from error
        except OSError as error:
            raise ImportFileError(
                f"damaged or cut short behind line {self._lines}: {error}"
            ) from error
        except VendorLineError as error:
            raise ImportFileError(f"behind line {self._lines}: {error}") from error

    def _await(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Have the loop do something and wait for it."""
        self._pending = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        if self._is_over:
            self._pending.cancel()
        result: _T = self._pending.result()
        return result

    def _peek(self) -> bytes:
        """The beginning of the file, as far as it is needed to tell what it is."""
        longest = max(len(one) for one in AGE_BEGINNINGS)
        while len(self._buffer) < longest and self._fill():
            pass
        return self._buffer

    def _fill(self) -> bool:
        try:
            message = self._await(self._read())
        except Exception as error:
            self._failure = error  # age would tell of it in its own words
            raise
        if message is None:
            return False
        if self._skip_lines is None:
            self._skip_lines = message.skip_lines
        self._buffer += message.data
        self._bytes += len(message.data)
        return True

    def _take(self, size: int) -> bytes:
        """Some of the file, at most `size` bytes; nothing at its end."""
        while not self._buffer:
            if not self._fill():
                return b""
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _put(self, data: bytes) -> None:
        self._put_lines(self._cutter.cut(data))

    def _put_lines(self, lines: list[bytes]) -> None:
        for line in lines:
            self._lines += 1
            if self._lines <= (self._skip_lines or 0):
                continue
            self._waiting.append((self._lines, line))
            if len(self._waiting) == _BATCH:
                self._flush()

    def _flush(self) -> None:
        """Seal what waits, and answer."""
        waiting, self._waiting = self._waiting, []
        keys = self._executor.submit(lambda: self._seal(waiting)).result()
        self._await(self._write(pb.ImportedKeys(keys=keys, lines=self._lines, bytes=self._bytes)))

    def _seal(self, lines: list[tuple[int, bytes]]) -> list[pb.ImportedKey]:
        keys = []
        for number, line in lines:
            try:
                parsed = parse_line(number, line)
            except VendorLineError as error:
                keys.append(pb.ImportedKey(line=number, error=str(error)))
                continue
            if parsed is not None:
                sealed = seal_device_key(self._custody, *parsed)
                keys.append(pb.ImportedKey(line=number, key=sealed))
        return keys


class _Reader(io.BufferedIOBase):
    """What age reads from."""

    def __init__(self, take: Callable[[int], bytes]) -> None:
        self._take_some = take

    def read(self, size: int | None = -1, /) -> bytes:
        return self._take_some(size if size and size > 0 else _SHARE)


class _Writer(io.BufferedIOBase):
    """What age writes to."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put_on = put

    def write(self, data: Any, /) -> int:  # noqa: ANN401 (any bytes-like thing, says io)
        self._put_on(bytes(data))
        return len(data)
