"""Where signed heads go, so that whoever rules this host cannot take them back."""

import hashlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from portcullis.runtime.config import ConfigError
from portcullis.runtime.files import write_durably

SYSLOG_TAG = "portcullis-evidence"
_PRIORITY = 10 * 8 + 6  # RFC 5424 6.2.1: security messages, informational

Anchor = Callable[["Head"], None]
"""Lays a head down; raises OSError."""


@dataclass(frozen=True)
class Head:
    """One line of the chain of heads, as it stands in the log."""

    seq: int
    line: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the line without its end, in hex."""
        return hashlib.sha256(self.line.rstrip(b"\n")).hexdigest()


def parse_anchor(text: str) -> Anchor:
    """Read "dir:PATH", "syslog:PATH" or "syslog:host:port"; raises ConfigError."""
    kind, _, where = text.partition(":")
    host, _, port = where.rpartition(":")
    if kind == "dir" and where:
        return FileDrop(Path(where)).lay_down
    if kind == "syslog" and where.startswith("/"):
        return Syslog(where).lay_down
    if kind == "syslog" and host and port.isdecimal():
        return Syslog((host, int(port))).lay_down
    raise ConfigError(
        f'auditor.anchors: expected "dir:PATH", "syslog:PATH" or "syslog:host:port", got {text!r}'
    )


def file_name(seq: int) -> str:
    """The name of a head's file in a file drop."""
    return f"head-{seq:012d}.json"


class FileDrop:
    """A directory: a mount that only adds, or one that another host collects."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def lay_down(self, head: Head) -> None:
        """Write the head's line into a file of its own; one that is there is left alone."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / file_name(head.seq)
        if not path.exists():
            write_durably(path, head.line, mode=0o644)


class Syslog:
    """A line for each head: its number and its SHA-256 (RFC 5424), as one datagram."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        self._address = address

    def lay_down(self, head: Head) -> None:
        """Send the line."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = f"head={head.seq} sha256={head.digest}"
        line = f"<{_PRIORITY}>1 {now} {socket.gethostname()} {SYSLOG_TAG} {os.getpid()} - - {text}"
        if isinstance(self._address, str):
            family, address = socket.AF_UNIX, self._address
        else:
            family, _, _, _, address = socket.getaddrinfo(  # type: ignore[assignment]
                *self._address, type=socket.SOCK_DGRAM
            )[0]
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.send(line.encode())
