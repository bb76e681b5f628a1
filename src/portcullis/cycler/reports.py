"""What the cycler tells: first airings to the database, every airing to the as-run log."""

import asyncio
from collections import Counter
from collections.abc import Iterable

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from portcullis.cycler.asrun import MAX_UNWRITTEN, AsRunWriter, Batch
from portcullis.cycler.errors import AsRunError
from portcullis.runtime.logging import get_logger
from portcullis.runtime.threads import in_thread
from portcullis.store.airable import FirstAiring
from portcullis.store.database import reason_of
from portcullis.store.feed import write_first_airings

_REPORT_S = 0.1
_REPORT_MOST = 2000
_ASRUN_S = 1.0
_RETRY_S = 1.0

log = get_logger("portcullis.cycler.reports")


class FirstAiringReports:
    """First airings on their way to the database; kept until they are written."""

    def __init__(self, engine: Engine) -> None:
        self.errors = 0
        self._engine = engine
        self._unwritten: list[FirstAiring] = []

    def __len__(self) -> int:
        return len(self._unwritten)

    def add(self, aired: Iterable[FirstAiring]) -> None:
        """Queue what has just been aired first."""
        self._unwritten.extend(aired)

    async def run(self) -> None:
        """Write in batches until cancelled."""
        delay = _REPORT_S
        while True:
            await asyncio.sleep(delay)
            delay = _REPORT_S if await self.flush() else _RETRY_S

    async def flush(self) -> bool:
        """Write all there is; False if the database refused."""
        while batch := self._unwritten[:_REPORT_MOST]:
            try:
                await in_thread(write_first_airings, self._engine, batch)
            except SQLAlchemyError as error:
                self.errors += 1
                log.warning("cannot write first airings", reason=reason_of(error))
                return False
            del self._unwritten[: len(batch)]
        return True


class AsRunReports:
    """One stream's transmissions on their way to the as-run log.

    Attributes:
        batch: what has not been handed to the writer yet.
        counts: errors, and records lost because the disk refused them too long.
    """

    def __init__(self, writer: AsRunWriter, turn: asyncio.Lock) -> None:
        """Take where to write, and what all streams' reports take turns by.

        Writing at once, their threads would hold up each other, and what airs.
        """
        self.batch = Batch()
        self.counts: Counter[str] = Counter()
        self.writer = writer
        self._turn = turn
        self._trouble: str | None = None

    def notice(self) -> str | None:
        """What is wrong though the stream is on air."""
        return self._trouble

    async def run(self) -> None:
        """Write each second until cancelled."""
        while True:
            await asyncio.sleep(_ASRUN_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what has been aired since the last call."""
        if not len(self.batch):
            return
        async with self._turn:
            batch, self.batch = self.batch, Batch()
            try:
                evicted = await in_thread(self.writer.write, batch)
            except AsRunError as error:
                self._keep(batch, str(error))
                return
        self._trouble = None
        for path in evicted:
            log.warning("as-run file evicted", file=str(path))

    def _keep(self, batch: Batch, reason: str) -> None:
        """Have a batch that was not taken written with the next, or lost if it is too much."""
        self.counts["errors"] += 1
        self._trouble = reason
        log.error("cannot write the as-run log", reason=reason)
        batch.append(self.batch.records())
        self.batch = batch
        if len(batch) > MAX_UNWRITTEN:
            self.counts["lost_records"] += len(batch)
            self.batch = Batch()
