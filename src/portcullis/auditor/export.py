"""Records of a window, device or product, each with the proof that it is in the log."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from portcullis.auditor.chainlog import directory_name, files_of, raw_lines
from portcullis.auditor.heads import read_head
from portcullis.auditor.spans import SignedHead, Span, span_of, spans
from portcullis.runtime.chain import Line, leaf_of, path_of, root_by_path
from portcullis.runtime.errors import PortcullisError

_SLACK = timedelta(hours=1)  # no head signs lines of a longer time
_FIELDS = (
    "type",
    "time",
    "request_id",
    "client_id",
    "transaction_id",
    "call",
    "device_id",
    "product_id",
    "message_id",
    "outcome",
    "detail",
    "wanted",
    "body",
    "event",
    "actor",
)
COLUMNS = ("chain", "seq", *_FIELDS, "content", "path", "head")


class ExportError(PortcullisError):
    """The log cannot be exported as it is, or what was exported cannot be read."""


@dataclass(frozen=True)
class Selection:
    """What is asked for; None: whatever it is."""

    since: datetime | None = None
    until: datetime | None = None
    device_id: int | None = None
    product_id: int | None = None

    def takes(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is asked for."""
        if "time" not in record:
            return False
        time = datetime.fromisoformat(record["time"])
        product_id = record.get("product_id")
        if record["type"] == "key_event":
            product_id = json.loads(record["detail"]).get("product_id")
        return (
            (self.since is None or time >= self.since)
            and (self.until is None or time < self.until)
            and (self.device_id is None or record.get("device_id") == str(self.device_id))
            and (self.product_id is None or product_id == self.product_id)
        )


@dataclass(frozen=True)
class Proven:
    """A record with its proof: the tree's path from its content to a signed head."""

    chain: str
    line: Line
    head: Line
    path: list[bytes]

    def fields(self) -> dict[str, Any]:
        """By the names of COLUMNS."""
        record = self.line.record
        return {
            "chain": self.chain,
            "seq": self.line.seq,
            **{name: record.get(name) for name in _FIELDS},
            "content": self.line.content.decode(),
            "path": " ".join(node.hex() for node in self.path),
            "head": self.head.encode().decode().rstrip("\n"),
        }


def select(root: Path, chain: str, wanted: Selection) -> Iterator[Proven]:
    """The records of a chain that are asked for and signed. Raises ExportError."""
    signed = spans(root, chain)
    span = next(signed, None)
    lines: list[Line] = []
    for line in _lines(root, chain, wanted):
        while span is not None and span.last < line.seq:
            span, lines = next(signed, None), []
        if span is None:
            return  # not signed yet
        if line.seq >= span.first:
            lines.append(line)
        if line.seq == span.last:
            yield from _proven(chain, span, lines, wanted)


def _lines(root: Path, chain: str, wanted: Selection) -> Iterator[Line]:
    for path in files_of(root / directory_name(chain)):
        # A file last written before `since` holds nothing that is asked for.
        since = 0.0 if wanted.since is None else (wanted.since - _SLACK).timestamp()
        if path.stat().st_mtime < since:
            continue
        for raw in raw_lines(path):
            if (line := Line.parse(raw.rstrip(b"\n"))) is not None:
                yield line


def _proven(chain: str, span: Span, lines: list[Line], wanted: Selection) -> Iterator[Proven]:
    taken = [line for line in lines if wanted.takes(line.record)]
    if taken and len(lines) != span.last - span.first + 1:
        raise ExportError(
            f"{chain}: lines that head {span.head} signs are not there: portcullis audit verify"
        )
    leaves = [leaf_of(line.content) for line in lines]
    for line in taken:
        yield Proven(chain, line, span.signed.line, path_of(line.seq - span.first, leaves))


def write_csv(records: Iterator[Proven], out: TextIO) -> int:
    """Write a header and a line a record; returns how many."""
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    count = 0
    for record in records:
        writer.writerow(record.fields())
        count += 1
    return count


def write_json(records: Iterator[Proven], out: TextIO) -> int:
    """Write one JSON array, a record a line; returns how many."""
    count = 0
    out.write("[")
    for record in records:
        fields = {name: value for name, value in record.fields().items() if value is not None}
        out.write(",\n" if count else "\n")
        out.write(json.dumps(fields, ensure_ascii=False))
        count += 1
    out.write("\n]\n")
    return count


FORMATS: Mapping[str, Callable[[Iterator[Proven], TextIO], int]] = {
    "csv": write_csv,
    "json": write_json,
}


def verify_export(file: Path, keys: Sequence[Ed25519PublicKey]) -> Iterator[tuple[str, str | None]]:
    """For each record of an export: where it says it stands, and what is wrong, if anything.

    Needs nothing but the file and the public keys that signed it. Raises ExportError.
    """
    for number, row in enumerate(_rows(file), start=1):
        where = f"record {number} ({row.get('chain')}, number {row.get('seq')})"
        yield where, _wrong(row, keys)


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            if opened.read(1) == "[":
                opened.seek(0)
                yield from json.load(opened)
            else:
                opened.seek(0)
                yield from csv.DictReader(opened)
    except (OSError, ValueError) as error:
        raise ExportError(f"{file}: cannot be read: {error}") from error


def _said(head: Line, keys: Sequence[Ed25519PublicKey]) -> dict[str, Any] | None:
    """The statement of a head that one of the keys has signed."""
    return next((said for key in keys if (said := read_head(head, key)) is not None), None)


def _wrong(row: Mapping[str, Any], keys: Sequence[Ed25519PublicKey]) -> str | None:
    try:
        content = str(row["content"]).encode()
        head = Line.parse(str(row["head"]).encode())
        path = [bytes.fromhex(node) for node in str(row["path"]).split()]
        line = Line.parse(content + b',"link":"' + b"00" * 32 + b'"}')
    except (KeyError, ValueError):
        return "has no proof"
    said = None if head is None else _said(head, keys)
    if head is None or line is None or said is None:
        return "its head is not signed by this key"
    entries = [one for one in said["chains"] if one["chain"] == row.get("chain")]
    if len(entries) != 1:
        return "its head says nothing of this chain"
    span = span_of(SignedHead(head, said), entries[0])
    size = span.last - span.first + 1
    if root_by_path(leaf_of(content), line.seq - span.first, size, path) != span.root:
        return "is not in the log that its head signs"
    record = line.record
    for name in _FIELDS:
        if _text(row.get(name)) != _text(record.get(name)):
            return f"{name} is not what was proven"
    return None if _text(row.get("seq")) == str(line.seq) else "seq is not what was proven"


def _text(value: object) -> str:
    return "" if value is None else str(value)
