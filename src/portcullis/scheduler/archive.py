"""The archive of old requests: gzipped JSON lines, a file a month, and a manifest of them.

A file is written under a passing name, forced to disk and read back from it; then it is entered
in the manifest, and then it gets its name. Only what the manifest has, under its name, as it was
written, lets rows go. Killed anywhere, the next run finds the rows whole and does it again; a
finished file is never written over. docs/operations/archive.md
"""

import fcntl
import gzip
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
from sqlalchemy import RowMapping

from portcullis.runtime.errors import PortcullisError

MANIFEST = "manifest.jsonl"
_PART = ".part"


class ArchiveError(PortcullisError):
    """The archive cannot be written, or is not what was written: nothing may be deleted."""


class Entry(msgspec.Struct, frozen=True):
    """A line of the manifest.

    file: its name. month: year and month, "202601". rows: lines in it.
    content_sha256: of the lines. file_sha256, bytes: of the file as it is.
    """

    file: str
    month: str
    rows: int
    first_request_id: str
    last_request_id: str
    content_sha256: str
    file_sha256: str
    bytes: int
    archived_at: datetime


class Content(msgspec.Struct):
    """What has been written of a file, or read back."""

    rows: int = 0
    first_request_id: str = ""
    last_request_id: str = ""
    sha256: str = ""


def to_line(row: Mapping[str, object] | RowMapping) -> bytes:
    """One request as a line of JSON: its columns, the body as JSON; what is NULL is left out."""
    fields = {name: value for name, value in row.items() if value is not None}
    fields.pop("covering", None)
    if fields.get("device_id") is not None:
        fields["device_id"] = str(fields["device_id"])
    try:
        fields["body"] = msgspec.json.decode(str(row["body"]))
    except msgspec.DecodeError:
        fields["body"] = str(row["body"])
    return msgspec.json.encode(fields) + b"\n"


class Archive:
    """A directory of archived months."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._manifest = directory / MANIFEST

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who writes it; raises ArchiveError."""
        with _told(self._directory):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with _told(self._directory):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for left in self._directory.glob(f"*{_PART}"):
                    left.unlink()
            yield
        finally:
            os.close(lock)

    def entries(self) -> list[Entry]:
        """The manifest; raises ArchiveError."""
        with _told(self._manifest):
            if not self._manifest.exists():
                return []
            return msgspec.json.Decoder(Entry).decode_lines(self._manifest.read_bytes())

    def find(
        self, wanted: Mapping[str, str], progress: Callable[[int], None] = lambda _: None
    ) -> Iterator[dict[str, object]]:
        """Yield the requests whose fields are these, oldest first, each with the `file` it is in.

        A `request_id` is looked for in its month alone. `progress` is told of each month that is
        looked into. Raises ArchiveError.
        """
        request_id = wanted.get("request_id")
        for entry in self.entries():
            progress(1)
            if request_id and not entry.first_request_id <= request_id <= entry.last_request_id:
                continue
            path = self._directory / entry.file
            with _told(path), gzip.open(path, "rb") as packed:
                for line in packed:
                    # Most lines are not even read as JSON.
                    if all(msgspec.json.encode(value) in line for value in wanted.values()):
                        fields = msgspec.json.decode(line, type=dict[str, object])
                        if wanted.items() <= fields.items():
                            yield {"file": entry.file} | fields

    def keep(self, month: str, pages: Iterable[Iterable[RowMapping]]) -> Entry | None:
        """Have a month's rows in a file that is safe on disk; None where there is none.

        Raises ArchiveError.
        """
        with _told(self._directory):
            part = self._directory / f"requests-{month}{_PART}"
            written = _write(part, pages)
            if not written.rows:
                part.unlink()
                return None
            for entry in self.entries():
                if (entry.month, entry.content_sha256) == (month, written.sha256):
                    if self._is_whole(entry):
                        part.unlink()
                        return entry
                    self._forget(entry)
            return self._enter(month, part, written)

    def _enter(self, month: str, part: Path, written: Content) -> Entry:
        if read_back(part) != written:
            raise ArchiveError(f"{part}: reads back as something else than was written")
        entry = Entry(
            file=self._free_name(month),
            month=month,
            rows=written.rows,
            first_request_id=written.first_request_id,
            last_request_id=written.last_request_id,
            content_sha256=written.sha256,
            file_sha256=_sha256(part),
            bytes=part.stat().st_size,
            archived_at=datetime.now(UTC),
        )
        self._write_manifest([*self.entries(), entry])
        part.rename(self._directory / entry.file)
        _sync(self._directory)
        return entry

    def _is_whole(self, entry: Entry) -> bool:
        """Whether a file of the manifest is there as it was written."""
        path = self._directory / entry.file
        return path.exists() and _sha256(path) == entry.file_sha256

    def _free_name(self, month: str) -> str:
        """A name that no file has: what came back by a restore does not replace what was kept."""
        name, number = f"requests-{month}.jsonl.gz", 1
        while (self._directory / name).exists():
            number += 1
            name = f"requests-{month}-{number}.jsonl.gz"
        return name

    def _forget(self, lost: Entry) -> None:
        self._write_manifest([entry for entry in self.entries() if entry != lost])

    def _write_manifest(self, entries: list[Entry]) -> None:
        part = self._manifest.with_suffix(_PART)
        with _create(part) as file:
            file.write(msgspec.json.Encoder().encode_lines(entries))
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._manifest)
        _sync(self._directory)


def _write(path: Path, pages: Iterable[Iterable[RowMapping]]) -> Content:
    content, digest = Content(), hashlib.sha256()
    with _create(path) as raw:
        # Neither name nor time: the same rows make the same file.
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
            for page in pages:
                for row in page:
                    line = to_line(row)
                    packed.write(line)
                    digest.update(line)
                    content.rows += 1
                    content.first_request_id = content.first_request_id or row["request_id"]
                    content.last_request_id = row["request_id"]
        raw.flush()
        os.fsync(raw.fileno())
        # What is read back shall come from the disk.
        os.posix_fadvise(raw.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    content.sha256 = digest.hexdigest()
    return content


def read_back(path: Path) -> Content:
    """Read a file of the archive through; raises ArchiveError if it is damaged."""
    content, digest = Content(), hashlib.sha256()
    line = b""
    with _told(path), gzip.open(path, "rb") as packed:
        for line in packed:
            digest.update(line)
            if not content.rows:
                content.first_request_id = _request_id(path, line)
            content.rows += 1
    content.last_request_id = _request_id(path, line) if line else ""
    content.sha256 = digest.hexdigest()
    return content


class _Named(msgspec.Struct):
    request_id: str


def _request_id(path: Path, line: bytes) -> str:
    try:
        return msgspec.json.decode(line, type=_Named).request_id
    except msgspec.DecodeError as error:
        raise ArchiveError(f"{path}: a line is no request: {error}") from error


def _create(path: Path) -> BinaryIO:
    """Open a new file that only this user may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return cast("BinaryIO", os.fdopen(descriptor, "wb"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(directory: Path) -> None:
    """Force names to disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what the disk says into ArchiveError."""
    try:
        yield
    except BlockingIOError as error:
        raise ArchiveError(f"{path}: another process writes the archive") from error
    except (OSError, EOFError) as error:  # gzip.BadGzipFile is an OSError
        raise ArchiveError(f"{path}: {error}") from error
    except msgspec.MsgspecError as error:
        raise ArchiveError(f"{path}: not a manifest: {error}") from error
