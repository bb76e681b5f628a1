"""The log beside the database that it was made from."""

import json
from datetime import datetime, timedelta

from sqlalchemy import Engine

from portcullis.auditor.report import Report
from portcullis.runtime.chain import Line
from portcullis.store.evidence import (
    MISSING,
    Chain,
    count_unchained,
    lowest_number,
    read_chains,
    read_records,
)

_LATE = timedelta(minutes=1)
_SLACK = timedelta(days=1)
_CHUNK = 1000


class DatabaseView:
    """The chains as the database has them.

    requests_keep: age from which rows may have been purged.
    """

    def __init__(
        self, engine: Engine, report: Report, requests_keep: timedelta, now: datetime
    ) -> None:
        self._engine = engine
        self._report = report
        self._gone_before = now - requests_keep + _SLACK
        self._chains = {chain.name: chain for chain in read_chains(engine)}

    @property
    def chains(self) -> set[str]:
        """Their names."""
        return set(self._chains)

    def comparison(self, name: str) -> "Comparison | None":
        """What the lines of a chain are compared with."""
        restored = max((chain.series for chain in self._chains.values()), default=0)
        chain = self._chains.get(name)
        if chain is None:
            if restored:
                self._report.notes.append(f"{name}: the database was restored to before it began")
            else:
                self._report.find(name, "the database knows no such chain")
            return None
        is_over = any(
            other.writer == chain.writer and other.series > chain.series
            for other in self._chains.values()
        )
        return Comparison(
            self._engine, chain, self._report, is_over=is_over, gone_before=self._gone_before
        )

    def look_for_unchained(self) -> None:
        """Find requests that are in no chain, but for those of a release before the chains."""
        begun = min((chain.begun_at for chain in self._chains.values()), default=None)
        if begun is not None and (count := count_unchained(self._engine, begun + _SLACK)):
            self._report.find("requests", f"{count} rows are in no chain")


class Comparison:
    """Compares the lines of a chain with the rows they were made from, many at a time.

    is_over: a restored database goes on in another series; what it lost is only here.
    """

    def __init__(
        self, engine: Engine, chain: Chain, report: Report, *, is_over: bool, gone_before: datetime
    ) -> None:
        self._engine = engine
        self._chain = chain
        self._report = report
        self._is_over = is_over
        self._gone_before = gone_before
        self._lowest = lowest_number(engine, chain)
        self._lines: list[tuple[Line, str]] = []
        self._purged: tuple[Line, str] | None = None
        self._lost = 0

    def add(self, line: Line, where: str) -> None:
        """Take a line."""
        if self._is_over and line.seq > self._chain.seq:
            self._lost += 1
        elif self._lowest is None or line.seq < self._lowest:
            self._purged = line, where
        else:
            self._lines.append((line, where))
            if len(self._lines) == _CHUNK:
                self._compare()

    def end(self, last: int, now: datetime) -> None:
        """Compare the rest, and what the log does not have."""
        self._compare()
        if self._lost:
            self._report.notes.append(
                f"{self._chain.name}: {self._lost} records were lost when the database was restored"
            )
        if self._purged is not None:
            line, where = self._purged
            if datetime.fromisoformat(line.record["time"]) > self._gone_before:
                self._report.find(
                    where, "this and what is before it is not in the database, and not old enough"
                )
        if self._chain.seq > last:
            [row] = read_records(self._engine, self._chain, last + 1, last + 1)
            time = json.loads(row).get("time")
            if time is None or now - datetime.fromisoformat(time) > _LATE:
                self._report.find(
                    self._chain.name,
                    f"the log ends at number {last}, the database at {self._chain.seq}:"
                    " the auditor is behind, or the tail was cut off",
                )

    def _compare(self) -> None:
        if not self._lines:
            return
        first, last = self._lines[0][0].seq, self._lines[-1][0].seq
        rows = dict(enumerate(read_records(self._engine, self._chain, first, last), first))
        for line, where in self._lines:
            row = rows.get(line.seq, MISSING)
            if row == MISSING:
                self._report.find(where, "is not in the database")
            elif not line.content.endswith(b'"record":' + row):
                self._report.find(where, "is another in the database")
        self._lines.clear()
