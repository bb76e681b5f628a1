"""Which lines of a chain which head signs. Nothing is judged here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from portcullis.auditor.chainlog import directory_name, files_of, raw_lines
from portcullis.auditor.heads import HEADS
from portcullis.runtime.chain import Line


@dataclass(frozen=True)
class SignedHead:
    """One head as it stands in the log."""

    line: Line
    said: Mapping[str, Any]

    @property
    def time(self) -> datetime:
        """When it was signed."""
        return datetime.fromisoformat(self.said["time"])


@dataclass(frozen=True)
class Span:
    """Lines of one chain that a head vouches for."""

    signed: SignedHead
    first: int
    last: int
    link: bytes
    root: bytes

    @property
    def head(self) -> int:
        """The head's number."""
        return self.signed.line.seq

    @property
    def time(self) -> datetime:
        """When it was signed."""
        return self.signed.time


def heads(root: Path) -> Iterator[SignedHead]:
    """The heads, oldest first; what cannot be read is passed over."""
    for path in files_of(root / directory_name(HEADS)):
        for raw in raw_lines(path):
            line = Line.parse(raw.rstrip(b"\n"))
            said = None if line is None else _said(line)
            if line is not None and said is not None:
                yield SignedHead(line, said)


def _said(line: Line) -> Mapping[str, Any] | None:
    try:
        said: Mapping[str, Any] = line.record["head"]
    except (ValueError, KeyError, TypeError):
        return None
    return said if isinstance(said, dict) and {"time", "chains"} <= said.keys() else None


def spans(root: Path, chain: str) -> Iterator[Span]:
    """What the heads say of one chain."""
    for head in heads(root):
        for said in head.said["chains"]:
            if said["chain"] == chain:
                yield span_of(head, said)


def span_of(head: SignedHead, said: Mapping[str, Any]) -> Span:
    """One entry of a head."""
    link, root = bytes.fromhex(said["link"]), bytes.fromhex(said["root"])
    return Span(head, said["from"], said["to"], link, root)
