"""The request log: JSON lines in a file that is rotated, without secrets."""

import os
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from portcullis.gateway import metrics
from portcullis.runtime.config import ConfigError
from portcullis.runtime.logging import get_logger

MAX_WAITING_LINES = 50_000
"""Lines kept in memory while the disk refuses them: about 20 MB."""

log = get_logger("portcullis.gateway.requestlog")


class RequestLog:
    """One line a request, written before the answer.

    While the disk refuses lines they wait, in order, and orders go on; `retry` writes them when it
    takes them again. Beyond `MAX_WAITING_LINES` the oldest are lost, and counted.
    """

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        """Open the file; raises ConfigError where that is not for want of space."""
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._lock = threading.Lock()  # batches write from another thread
        self._waiting: deque[bytes] = deque()
        self._trouble: str | None = None
        self._file = -1
        self._bytes = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except (PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise ConfigError(f"gateway.request_log: {path}: {error.strerror}") from error
        except OSError as error:
            self._in_trouble(error)

    def write(self, *lines: Mapping[str, object]) -> None:
        """Write lines; what is None is left out."""
        encoded = [
            msgspec.json.encode({name: value for name, value in line.items() if value is not None})
            + b"\n"
            for line in lines
        ]
        with self._lock:
            self._waiting += encoded
            lost = max(len(self._waiting) - MAX_WAITING_LINES, 0)
            for _ in range(lost):
                self._waiting.popleft()
            metrics.REQUEST_LOG_LOST.inc(lost)
            self._write_waiting()

    def retry(self) -> None:
        """Try to write what waits."""
        with self._lock:
            if self._waiting:
                self._write_waiting()

    def notice(self) -> str | None:
        """What is wrong though orders are taken."""
        trouble, waiting = self._trouble, len(self._waiting)
        return None if trouble is None else f"{trouble}; {waiting} lines wait"

    def close(self) -> None:
        """Close the file; lines that still wait are lost, and counted."""
        self.retry()
        with self._lock:
            if self._waiting:
                metrics.REQUEST_LOG_LOST.inc(len(self._waiting))
                log.error("lines of the request log are lost", lines=len(self._waiting))
            self._close()

    def _write_waiting(self) -> None:
        try:
            while self._waiting:
                self._append(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            self._in_trouble(error)
        else:
            if self._trouble is not None:
                log.info("the request log is written again")
                self._trouble = None
        metrics.REQUEST_LOG_WAITING.set(len(self._waiting))

    def _append(self, line: bytes) -> None:
        """Append a whole line, or nothing; raises OSError."""
        if self._file < 0:
            self._open()
        if self._bytes and self._bytes + len(line) > self._max_bytes:
            self._rotate()
        before = self._bytes
        try:
            while line:
                written = os.write(self._file, line)
                self._bytes += written
                line = line[written:]
        except OSError:
            # Half a line would spoil the next one; cutting it off needs no space.
            with suppress(OSError):
                os.ftruncate(self._file, before)
            self._close()
            raise

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self._bytes = os.fstat(self._file).st_size

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _rotate(self) -> None:
        """requests.jsonl becomes .1, .1 becomes .2, and so on; the last goes."""
        self._close()
        for number in range(self._files - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._numbered(number).replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _in_trouble(self, error: OSError) -> None:
        metrics.REQUEST_LOG_ERRORS.inc()
        if self._trouble is None:
            log.error("cannot write the request log", file=str(self._path), reason=error.strerror)
        self._trouble = f"{self._path}: {error.strerror}"
