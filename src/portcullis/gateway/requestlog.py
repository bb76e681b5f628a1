"""The request log: JSON lines in a file that is rotated, without secrets."""

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

import msgspec


class RequestLog:
    """One line a request, written before the answer."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = RotatingFileHandler(
            path, maxBytes=max_bytes, backupCount=files, encoding="utf-8"
        )
        self._logger = logging.Logger("requests")  # noqa: LOG001 (outside the tree: this file and no other)
        self._logger.addHandler(self._handler)

    def write(self, **line: object) -> None:
        """Write one line; what is None is left out."""
        kept = {name: value for name, value in line.items() if value is not None}
        self._logger.info("%s", msgspec.json.encode(kept).decode())

    def close(self) -> None:
        """Close the file."""
        self._handler.close()
