"""A chain in files: one directory a chain, one file after the other (docs/evidence.md).

A file begins with a header that names the chain and the link before its first
line. The newest file grows; closed ones are compressed. A line torn by a crash
is cut off when the log is opened: whoever writes it has it elsewhere.
"""

import gzip
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from portcullis.runtime.chain import Line, content_of, genesis, leaf_of, link_after
from portcullis.runtime.files import sync_directory, write_durably

FORMAT = 1
OPEN, CLOSED = ".jsonl", ".jsonl.gz"


@dataclass(frozen=True)
class Header:
    """The first line of a file: the chain, its first number there, and the link before it."""

    chain: str
    first: int
    prev: bytes

    @classmethod
    def parse(cls, raw: bytes) -> "Header | None":
        """Read a header; None for what is none."""
        try:
            said = json.loads(raw)
            if said["format"] != FORMAT:
                return None
            return cls(str(said["chain"]), int(said["first"]), bytes.fromhex(said["prev"]))
        except (ValueError, KeyError, TypeError):
            return None

    def encode(self) -> bytes:
        """The line with its end."""
        said = {"chain": self.chain, "format": FORMAT, "first": self.first}
        return json.dumps(said | {"prev": self.prev.hex()}).encode() + b"\n"


def directory_name(chain: str) -> str:
    """The directory of a chain, beside the others."""
    return chain.replace("/", ".")


def files_of(directory: Path) -> list[Path]:
    """The files of a chain, oldest first."""
    names = {path.name.partition(".")[0] for path in directory.glob("[0-9]*")}
    found = []
    for name in sorted(names):
        closed, growing = directory / f"{name}{CLOSED}", directory / f"{name}{OPEN}"
        # Both: closing it was interrupted.
        found += [path for path in (growing, closed) if path.exists()][:1]
    return found


def raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file with their ends; a torn one has none."""
    with gzip.open(path) if path.name.endswith(CLOSED) else path.open("rb") as opened:
        yield from opened


@dataclass(frozen=True)
class Keeping:
    """How large a file grows, and how long closed ones are kept."""

    file_bytes: int = 64_000_000
    keep_s: float = 1100 * 86_400.0


class ChainLog:
    """Writes one chain.

    Attributes:
        seq, link: of the last line; before the first, what it follows.
        last: the last line.
        is_begun: whether there is a file.
        cut_off: bytes of a torn line that were cut off when the log was opened.
    """

    def __init__(self, root: Path, chain: str, keeping: Keeping) -> None:
        self.chain = chain
        self.directory = root / directory_name(chain)
        self._keeping = keeping
        self._file: FileIO | None = None
        self.seq, self.link = 0, genesis(chain)
        self.last: Line | None = None
        self.is_begun = False
        self.cut_off = 0
        self._open()

    def _open(self) -> None:
        """Find the end, and cut off what a crash has left there."""
        for path in reversed(files_of(self.directory)):
            read = whole = 0
            for raw in raw_lines(path):
                read += len(raw)
                if raw.endswith(b"\n") and self._take(raw):
                    whole = read
            if path.name.endswith(CLOSED):
                self.is_begun = True
                return
            self.cut_off += read - whole
            if whole > 0:
                self.is_begun = True
                self._file = FileIO(path, "r+")
                self._file.truncate(whole)
                self._file.seek(whole)
                return
            path.unlink()

    def _take(self, raw: bytes) -> bool:
        if (line := Line.parse(raw[:-1])) is not None:
            self.seq, self.link, self.last = line.seq, line.link, line
        elif (header := Header.parse(raw)) is not None:
            self.seq, self.link = header.first - 1, header.prev
        else:
            return False
        return True

    def begin_at(self, first: int) -> None:
        """Begin a log that is not begun with a later number than 1: earlier ones are gone."""
        self.seq = first - 1

    def append(self, records: Sequence[bytes]) -> list[bytes]:
        """Write records, in JSON, as the next lines, and return their leaves.

        They are on the disk then. Raises OSError: the log is to be opened anew, and tells then
        how much of it was written.
        """
        lines = []
        written = bytearray()
        if self._file is None or self._file.tell() >= self._keeping.file_bytes:
            self._next_file()
            written += Header(self.chain, self.seq + 1, self.link).encode()
        link = self.link
        for seq, record in enumerate(records, self.seq + 1):
            content = content_of(seq, record)
            link = link_after(link, content)
            lines.append(Line(seq, content, link))
            written += lines[-1].encode()
        try:
            self._write(written)
        except OSError:
            self.close()
            raise
        self.last = lines[-1]
        self.seq, self.link = self.last.seq, self.last.link
        return [leaf_of(line.content) for line in lines]

    def _write(self, data: bytearray) -> None:
        assert self._file is not None  # noqa: S101 (append has opened it)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())

    def leaves_after(self, seq: int) -> list[bytes]:
        """The leaves of the lines beyond a number."""
        found: list[list[bytes]] = []
        for path in reversed(files_of(self.directory)):
            header, *lines = [self._read(raw) for raw in raw_lines(path)]
            found.append(
                [
                    leaf_of(line.content)
                    for line in lines
                    if isinstance(line, Line) and line.seq > seq
                ]
            )
            if isinstance(header, Header) and header.first <= seq + 1:
                break
        return [leaf for leaves in reversed(found) for leaf in leaves]

    @staticmethod
    def _read(raw: bytes) -> Line | Header | None:
        return Line.parse(raw[:-1]) or Header.parse(raw)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next_file(self) -> None:
        self.close()
        self.directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        for path in files_of(self.directory):
            if path.name.endswith(OPEN):
                _compress(path)
        self._evict()
        self._file = FileIO(self.directory / f"{self.seq + 1:015d}{OPEN}", "w")
        self.is_begun = True
        sync_directory(self.directory)

    def _evict(self) -> None:
        """Remove closed files that are older than is to be kept."""
        for path in files_of(self.directory)[:-1]:
            if time.time() - path.stat().st_mtime > self._keeping.keep_s:
                path.unlink()


def _compress(path: Path) -> None:
    closed = path.with_name(path.name.removesuffix(OPEN) + CLOSED)
    with path.open("rb") as plain:
        write_durably(closed, gzip.compress(plain.read()), mode=0o640)
    path.unlink()
