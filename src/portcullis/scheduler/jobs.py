"""The jobs: each reads, decides, and writes in chunks while this process leads."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine, RowMapping

from portcullis.runtime.errors import PortcullisError
from portcullis.runtime.logging import get_logger
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.scheduler import metrics
from portcullis.scheduler.archive import Archive
from portcullis.scheduler.config import SchedulerConfig
from portcullis.scheduler.rotating import Rotation
from portcullis.store import purge, recovery, rotation
from portcullis.store.archive import (
    Slice,
    drop_slice,
    due_slices,
    oldest_request_at,
    read_slice,
)
from portcullis.store.database import database_now
from portcullis.store.keys import insert_chain, products_without_chain
from portcullis.store.partitions import split_off_months

CHUNK = 1000
RESEAL_EVERY_S = 10.0
_MIN_RESEAL_CHUNK = 100
_LOST_EPOCHS = 1024  # of 65,535; chains have 128 at most

log = get_logger("portcullis.scheduler")


class NotLeadingError(PortcullisError):
    """The lease has gone, or the service stops: what was under way is left to the next leader."""


class Jobs:
    """All that is done on time. `leads`: asked before every chunk; when it says no, stop.

    `doubts`: why what the database's clock says is not to be believed where it cannot be undone.
    `now` replaces the database's clock (tests).
    """

    def __init__(
        self,
        engine: Engine,
        client: EncryptorClient,
        config: SchedulerConfig,
        leads: Callable[[], bool],
        now: Callable[[], datetime] | None = None,
        *,
        doubts: Callable[[datetime], str | None] = lambda _now: None,
    ) -> None:
        self._engine = engine
        self._doubts = doubts
        self._client = client
        self._config = config
        self._leads = leads
        self._now = now or self._database_now
        self.rotation = Rotation(engine, client, config, leads, self._now)
        self._feed_marks: deque[tuple[datetime, int]] = deque()

    def _database_now(self) -> datetime:
        with self._engine.connect() as connection:
            return database_now(connection)

    def make_chains(self) -> None:
        """Give products that have none their first key chain."""
        for product_id in products_without_chain(self._engine):
            if not self._leads():
                return
            insert_chain(
                self._engine, self._client.make_chain(product_id, 1, self._config.chain_epochs)
            )
            metrics.KEY_STEPS.labels("chain").inc()
            log.info("product key chain made", product_id=product_id)

    def rotate(self) -> None:
        """Take every product's key rotation a step further; after a restore, make new chains."""
        if (restored := recovery.open_recovery(self._engine)) is not None:
            if not restored.has_chains:
                self._make_chains_anew(restored)
            return
        self.rotation.step()

    def _make_chains_anew(self, restored: recovery.Recovery) -> None:
        """Make a chain for every product, which no box is given before the SMS has caught up.

        Its epochs lie beyond those of chains that were made, and lost, since the backup.
        """
        old = recovery.products_with_old_chains(self._engine, restored)
        for product_id, last_epoch in old.items():
            if not self._leads():
                return
            first = last_epoch + 1 + _LOST_EPOCHS
            last = first + self._config.chain_epochs - 1
            sealed = self._client.make_chain(product_id, first, last)
            recovery.insert_withheld_chain(self._engine, sealed)
            metrics.KEY_STEPS.labels("chain").inc()
            log.info("product key chain made after a restore", product_id=product_id)
        recovery.note_chains_made(self._engine)

    def reseal(self) -> None:
        """Have states that have grown old sealed anew, spread over the day."""
        if recovery.open_recovery(self._engine) is not None:
            return
        share = RESEAL_EVERY_S / self._config.reseal_every
        # Twice the even share, so that what has piled up shrinks.
        limit = max(_MIN_RESEAL_CHUNK, int(2 * share * rotation.population(self._engine)))
        while limit > 0 and self._leads():
            size = min(limit, CHUNK)
            count = rotation.mark_chunk_for_reseal(
                self._engine, self._now(), self._config.reseal_every.delta, size
            )
            metrics.MARKED.labels("reseal").inc(count)
            limit = limit - size if count == size else 0

    def purge(self) -> None:
        """Take what is over off the air, then out of the tables."""
        now = self._now()
        if (trouble := self._doubts(now)) is None:
            self._drain("ended", lambda: purge.tombstone_ended(self._engine, now))
        else:
            log.warning("what has ended stays on air: the clock is in doubt", reason=trouble)
        if self._leads():
            metrics.PURGED.labels("removed").inc(purge.tombstone_removed(self._engine, now))
        revision = self._revision_seen_by_all(now)
        if revision is not None:
            self._drain("tombstone", lambda: purge.delete_tombstones(self._engine, revision))
        self._drain("over", lambda: purge.delete_over(self._engine, now))
        keep_from = now - self._config.requests_keep.delta
        oldest = oldest_request_at(self._engine)
        self._drain("old", lambda: purge.delete_old(self._engine, keep_from, oldest))
        if self._leads() and (action := split_off_months(self._engine, now)):
            log.info("requests repartitioned", action=action)

    def archive(self) -> None:
        """Move months of requests beyond their retention to files; without a place, they stay."""
        if self._config.archive_dir is None:
            return
        due = due_slices(self._engine, self._now() - self._config.requests_keep.delta)
        if not due:
            return
        archive = Archive(Path(self._config.archive_dir))
        with archive.locked():
            for one in due:
                entry = archive.keep(one.name, self._pages(one))
                if not self._leads():
                    return
                drop_slice(self._engine, one, 0 if entry is None else entry.rows)
                if entry is not None:
                    metrics.ARCHIVED.inc(entry.rows)
                    log.info("requests archived", file=entry.file, rows=entry.rows)

    def _pages(self, one: Slice) -> Iterator[Sequence[RowMapping]]:
        for page in read_slice(self._engine, one):
            if not self._leads():
                raise NotLeadingError(f"stopped while archiving {one.name}: it is begun again")
            yield page

    def _drain(self, what: str, chunk: Callable[[], int]) -> None:
        while self._leads() and (count := chunk()):
            metrics.PURGED.labels(what).inc(count)

    def _revision_seen_by_all(self, now: datetime) -> int | None:
        """The feed's revision `tombstones_keep` ago; None until this process knows it."""
        self._feed_marks.append((now, purge.feed_revision(self._engine)))
        horizon = now - self._config.tombstones_keep.delta
        seen = None
        while self._feed_marks and self._feed_marks[0][0] <= horizon:
            seen = self._feed_marks.popleft()
        if seen is None:
            return None
        self._feed_marks.appendleft(seen)
        return seen[1]
