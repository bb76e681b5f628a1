"""Follows the feed of `emms` into the carousels, and keeps the database's time."""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from portcullis.cycler.arena import StateSections
from portcullis.cycler.carousel import Carousel
from portcullis.cycler.errors import NotAirableError
from portcullis.runtime.logging import get_logger
from portcullis.runtime.memory import give_back
from portcullis.runtime.threads import in_thread
from portcullis.store.airable import AirableEmm
from portcullis.store.database import reason_of
from portcullis.store.feed import TOMBSTONE_HORIZON_S, FeedPosition, FeedWatch, next_changes
from portcullis.store.load import Page, all_rows, read_page

_PAGE = 5000  # EMMs
_FIRST_PAGES = 20_000  # EMMs: while nothing is on air, the event loop may be kept longer
_ROWS_PER_TURN = 200  # applied before the event loop may send again
_SAFE_HORIZON_S = TOMBSTONE_HORIZON_S * 0.8
_RETRY_S = 1.0
_SOONER, _LOOKS_SOONER = 3, 10

log = get_logger("portcullis.cycler.follower")


class DatabaseClock:
    """The database's time, reckoned from this machine's monotonic clock."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Unix seconds by the database's clock."""
        return time.monotonic() + self._offset_s

    def measured(self, database_s: float, asked_at: float, answered_at: float) -> None:
        """Correct the offset, unless it lies within what the round trip leaves uncertain."""
        offset_s = database_s - (asked_at + answered_at) / 2
        if abs(offset_s - self._offset_s) > (answered_at - asked_at) / 2:
            self._offset_s = offset_s


class Follower:
    """Reads the feed for all streams.

    Attributes:
        loaded: set once all EMMs are in the carousels.
        read_at: monotonic time of the last successful look at the feed.
        counts: mishaps, by kind.
    """

    def __init__(self, engine: Engine, carousels: Sequence[Carousel], clock: DatabaseClock) -> None:
        self.loaded = asyncio.Event()
        self.changed = asyncio.Event()
        self.read_at = clock.now()
        self.counts: Counter[str] = Counter()
        self._engine = engine
        self._carousels = carousels
        self._clock = clock
        self._watch = FeedWatch(engine)
        self._last: FeedPosition | None = None

    async def run(self, poll_s: float) -> None:
        """Follow until cancelled; while the database is away the carousels keep what they have.

        Where there was a change the next is near: it is looked for sooner, some times.
        """
        sooner = 0
        while True:
            sooner = max(0, sooner - 1)
            try:
                if await self.step():
                    sooner = _LOOKS_SOONER
            except SQLAlchemyError as error:
                self.counts["database"] += 1
                log.warning("cannot read the feed", reason=reason_of(error))
                await asyncio.sleep(_RETRY_S)
            await asyncio.sleep(poll_s / _SOONER if sooner else poll_s)

    async def step(self) -> bool:
        """Take over what has changed; returns whether anything has. Raises SQLAlchemyError."""
        asked_at = self._clock.now()
        position = await in_thread(self._watch.position)
        answered_at = self._clock.now()
        self._clock.measured(position.database_time.timestamp(), asked_at, answered_at)
        last = self._last
        if last is None or last.timeline != position.timeline or _is_stale(last, position):
            log.info("loading", timeline=position.timeline, revision=position.revision)
            await self._load()
        elif position.revision != last.revision:
            await self._follow(last.revision, position.revision)
        self._last = position
        for carousel in self._carousels:
            carousel.revision = position.revision
        self.read_at = self._clock.now()
        if not self.loaded.is_set():
            log.info("loaded", emms=len(self._carousels[0].arena))
            gc.freeze()  # to go through what lives as long as the process would interrupt the air
            self.loaded.set()
        return last is None or position[:2] != last[:2]

    async def _follow(self, after: int, up_to: int) -> None:
        """Take over the changes of these revisions: after an outage there may be a million."""
        while after < up_to:
            after, rows = await in_thread(next_changes, self._engine, after, up_to, _PAGE)
            await self._apply(rows)

    async def _load(self) -> None:
        """Read everything; what changes meanwhile has a revision beyond where the feed stood."""
        for carousel in self._carousels:
            carousel.begin_load()
        settled_before = self._clock.wall() - max(one.walk_s for one in self._carousels)
        reading = self._read_page(0, settled_before)
        try:
            while (page := await reading) is not None:
                reading = self._read_page(page.up_to, settled_before)
                await asyncio.sleep(0)  # it begins, and goes on while this one is taken in
                await self._take_in(page)
        finally:
            reading.cancel()
        for carousel in self._carousels:
            carousel.end_load()
        give_back()

    def _read_page(self, after: int, settled_before: float) -> "asyncio.Task[Page | None]":
        emms = _PAGE if self.loaded.is_set() else _FIRST_PAGES
        page = in_thread(read_page, self._engine, after, emms, settled_before)
        return asyncio.create_task(page)

    async def _take_in(self, page: Page) -> None:
        rows = page.rows
        if not self._settle(page):
            rows = await in_thread(all_rows, self._engine, page)
        await self._apply(rows)

    def _settle(self, page: Page) -> bool:
        """Take a page's long aired states; False if one is no section: then row by row."""
        try:
            states = StateSections.of(page.states, page.after, page.up_to)
        except NotAirableError:
            return False
        now, wall = self._clock.now(), self._clock.wall()
        for carousel in self._carousels:
            carousel.settle(states, now, wall)
        return True

    async def _apply(self, rows: Sequence[AirableEmm]) -> None:
        for start in range(0, len(rows), _ROWS_PER_TURN):
            self._upsert(rows[start : start + _ROWS_PER_TURN])
            self.changed.set()
            await asyncio.sleep(0)

    def _upsert(self, rows: Iterable[AirableEmm]) -> None:
        now, wall = self._clock.now(), self._clock.wall()
        for emm in rows:
            for carousel in self._carousels:
                try:
                    if emm.tombstone:
                        carousel.remove(emm.key)
                    else:
                        carousel.upsert(emm, now, wall)
                except NotAirableError as error:
                    self.counts["malformed"] += 1
                    log.error(  # noqa: TRY400 (the trace would say no more)
                        "not aired", device_id=emm.device_id, reason=str(error)
                    )


def _is_stale(last: FeedPosition, position: FeedPosition) -> bool:
    """Whether tombstones may have gone since, or the feed has gone back."""
    absence_s = (position.database_time - last.database_time).total_seconds()
    return absence_s > _SAFE_HORIZON_S or position.revision < last.revision
