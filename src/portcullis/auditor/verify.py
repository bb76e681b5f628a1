"""Is the record as it was written? Chains, signed heads, anchors and the database, compared."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from portcullis.auditor.anchors import SYSLOG_TAG
from portcullis.auditor.chainlog import Header, directory_name, files_of, raw_lines
from portcullis.auditor.comparison import Comparison, DatabaseView
from portcullis.auditor.heads import HEADS, KEY_CHANGE, key_id, key_of, read_head
from portcullis.auditor.report import Report
from portcullis.auditor.spans import Span, heads, spans
from portcullis.runtime.chain import Line, genesis, leaf_of, link_after, root_of
from portcullis.store.evidence import MISSING

_PROGRESS = 1000
_SYSLOG = re.compile(SYSLOG_TAG + r"\b.*\bhead=(\d+) sha256=([0-9a-f]{64})")


@dataclass(frozen=True)
class Anchors:
    """What was laid down elsewhere: head → SHA-256 in hex, and where that was read."""

    digests: Mapping[int, tuple[str, str]]

    @classmethod
    def read(cls, paths: Sequence[Path]) -> "Anchors":
        """Read file drops (directories) and syslog files."""
        digests: dict[int, tuple[str, str]] = {}
        for path in paths:
            if path.is_dir():
                for file in sorted(path.glob("head-*.json")):
                    number = int(file.stem.partition("-")[2])
                    line = file.read_bytes().rstrip(b"\n")
                    digests[number] = hashlib.sha256(line).hexdigest(), str(file)
            else:
                for line_text in path.read_text(errors="replace").splitlines():
                    if match := _SYSLOG.search(line_text):
                        digests[int(match[1])] = match[2], str(path)
        return cls(digests)


def chains_in(root: Path) -> list[str]:
    """The chains of a directory of evidence, that of the heads left out."""
    found = []
    for directory in sorted(path for path in root.iterdir() if path.is_dir()):
        first = [next(raw_lines(path), b"") for path in files_of(directory)[:1]]
        headers = [header for raw in first if (header := Header.parse(raw)) is not None]
        found += [header.chain for header in headers if header.chain != HEADS]
    return found


def first_key(root: Path) -> Ed25519PublicKey | None:
    """The key of the oldest head, if it was changed since; what it has signed is to be verified."""
    for head in heads(root):
        if KEY_CHANGE in head.said:
            try:
                return key_of(head.said[KEY_CHANGE]["from"])
            except (KeyError, TypeError, ValueError):
                return None
    return None


class Verifier:
    """Verifies one directory of evidence.

    key: one of those that the auditor has signed with, as it was taken off its host.
    database: what to compare with; None: the files alone.
    keep: how long files are kept: what is older may be gone.
    progress: told how many lines were read.
    """

    def __init__(
        self,
        root: Path,
        key: Ed25519PublicKey,
        anchors: Anchors,
        report: Report,
        *,
        database: DatabaseView | None = None,
        keep: timedelta,
        now: datetime,
        progress: Callable[[int], None] = lambda _lines: None,
    ) -> None:
        self._root = root
        self._key = key
        self._anchors = anchors
        self._database = database
        self._keep = keep
        self._now = now
        self._progress = progress
        self.report = report
        self._read = 0
        self._forged: set[int] = set()  # heads that are not the auditor's

    def run(self) -> Report:
        """Verify everything."""
        signed = self._verify_heads()
        here = set(chains_in(self._root))
        in_database = self._database.chains if self._database else set()
        for name in sorted(here | signed.keys() | in_database):
            comparison = self._database.comparison(name) if self._database else None
            self._verify_chain(name, signed.get(name, 0), comparison)
        if self._database:
            self._database.look_for_unchained()
        self.report.chains = sorted(here)
        return self.report

    def _lines(self, chain: str) -> Iterator[tuple[Line, bytes, str]]:
        """The lines of a chain that follow on one another, each with the link before and where.

        What does not follow is a finding; reading goes on from what stands there.
        """
        files = files_of(self._root / directory_name(chain))
        link, expected = genesis(chain), 1
        is_first = True
        for path in files:
            for raw in raw_lines(path):
                self._read += 1
                if self._read % _PROGRESS == 0:
                    self._progress(_PROGRESS)
                if (header := Header.parse(raw)) is not None:
                    if is_first:
                        self._verify_begin(chain, header, path)
                    elif (header.chain, header.first, header.prev) != (chain, expected, link):
                        self.report.find(
                            str(path), f"begins at {header.first}, not at {expected} as it must"
                        )
                    link, expected, is_first = header.prev, header.first, False
                    continue
                where = f"{path}, number {expected}"
                line = Line.parse(raw[:-1]) if raw.endswith(b"\n") else None
                if line is None:
                    expected += self._unreadable(
                        where, is_torn=raw[-1:] != b"\n" and path == files[-1]
                    )
                    continue
                if (wrong := _wrong(line, expected, link)) is not None:
                    self.report.find(where, wrong)
                yield line, link, where
                link, expected = line.link, line.seq + 1

    def _unreadable(self, where: str, *, is_torn: bool) -> int:
        """Judge what is no line; returns how many lines it stands for."""
        if is_torn:
            self.report.notes.append(f"{where}: the last line is torn by a crash")
            return 0
        self.report.find(where, "cannot be read")
        return 1

    def _verify_begin(self, chain: str, header: Header, path: Path) -> None:
        if header.chain != chain:
            self.report.find(str(path), f"is of chain {header.chain}")
        if header.prev == genesis(chain):
            if header.first > 1:
                self.report.notes.append(f"{chain}: begins at {header.first}, with the auditor")
        elif not self._may_be_gone(chain, header.first - 1):
            self.report.find(str(path), f"numbers before {header.first} are not there")

    def _may_be_gone(self, chain: str, last: int) -> bool:
        """Whether what came before is old enough. The next head vouches for the link to it."""
        if chain == HEADS:
            first = next(heads(self._root), None)
            return first is not None and self._now - first.time > self._keep
        return any(
            span.first <= last <= span.last and self._now - span.time > self._keep
            for span in self._spans(chain)
        )

    def _verify_heads(self) -> dict[str, int]:
        """Verify the chain of heads; chain → the last number that is signed."""
        at: dict[str, int] = {}
        anchored = dict(self._anchors.digests)
        key, signers = first_key(self._root) or self._key, set()
        for line, prev, where in self._lines(HEADS):
            self.report.heads += 1
            statement = read_head(line, key)
            if statement is None or (statement["seq"], statement["prev"]) != (line.seq, prev.hex()):
                self.report.find(where, "is not signed by the auditor's key")
                self._forged.add(line.seq)
                continue
            for span in statement["chains"]:
                before = at.get(span["chain"])
                if before is not None and span["from"] != before + 1:
                    self.report.find(where, f"{span['chain']}: signs {span['from']} after {before}")
            at = dict(statement["at"])
            signers.add(key_id(key))
            if change := statement.get(KEY_CHANGE):
                key = key_of(change["to"])
            digest, anchor = anchored.pop(line.seq, (None, ""))
            if digest not in (None, hashlib.sha256(line.encode().rstrip(b"\n")).hexdigest()):
                self.report.find(where, f"is another head than the one anchored: {anchor}")
        for number, (_, anchor) in sorted(anchored.items()):
            self.report.find(f"head {number}", f"was anchored and is not there: {anchor}")
        if signers and key_id(self._key) not in signers:
            self.report.find(HEADS, "none is signed by the key given, nor by one that it signed in")
        return at

    def _spans(self, chain: str) -> Iterator[Span]:
        """What heads say of a chain, those that are not the auditor's left out."""
        return (span for span in spans(self._root, chain) if span.head not in self._forged)

    def _verify_chain(self, name: str, signed: int, comparison: Comparison | None) -> None:
        signatures = _Signatures(self._spans(name), self.report)
        last = 0
        for line, _, where in self._lines(name):
            self.report.records += 1
            last = line.seq
            signatures.add(line, where)
            if line.content.endswith(b'"record":' + MISSING):
                self.report.find(where, "was missing in the database when the auditor came to it")
            elif comparison is not None:
                comparison.add(line, where)
        if last < signed:
            self.report.find(
                name, f"the log ends at number {last}: its tail up to {signed} was cut off"
            )
        elif last > signed:
            self.report.notes.append(f"{name}: {last - signed} records are not signed yet")
        if comparison is not None:
            comparison.end(last, self._now)


def _wrong(line: Line, expected: int, before: bytes) -> str | None:
    """What is wrong with a line that is to have this number and follow this link."""
    if line.seq > expected:
        gone = str(expected) if line.seq == expected + 1 else f"{expected} to {line.seq - 1}"
        return f"number {gone} is not there"
    if line.seq < expected:
        return f"number {line.seq} stands there"
    if line.link != link_after(before, line.content):
        return "was changed: its link does not fit"
    return None


class _Signatures:
    """Holds the lines of a chain against the heads that sign them."""

    def __init__(self, spans: Iterator[Span], report: Report) -> None:
        self._spans = spans
        self._report = report
        self._span = next(spans, None)
        self._leaves: list[bytes] = []

    def add(self, line: Line, where: str) -> None:
        """Take the next line."""
        while self._span is not None and self._span.last < line.seq:
            self._next()  # what is not there has been found already, or may be gone
        if self._span is None or line.seq < self._span.first:
            return
        self._leaves.append(leaf_of(line.content))
        if line.seq == self._span.last:
            is_whole = len(self._leaves) == self._span.last - self._span.first + 1
            root = root_of(self._leaves) if is_whole else self._span.root
            if (line.link, root) != (self._span.link, self._span.root):
                self._report.find(where, f"head {self._span.head} signs another log up to here")
            self._next()

    def _next(self) -> None:
        self._span, self._leaves = next(self._spans, None), []
