"""What only the leader tells Prometheus, since it is read from the tables: queue and keys."""

from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from portcullis.runtime.metrics import gauge_family
from portcullis.scheduler.config import SchedulerConfig
from portcullis.store.archive import due_slices
from portcullis.store.database import database_now
from portcullis.store.figures import QueueFigures, queue_figures
from portcullis.store.recovery import Recovery, open_recovery
from portcullis.store.rotation import Chain, read_chains

FIGURES_EVERY_S = 5.0

_OLDEST = gauge_family(
    "portcullis_scheduler_oldest_order_seconds", "Wait of the oldest order not yet sealed"
)
_WAITING = gauge_family(
    "portcullis_scheduler_waiting_devices", "Devices whose EMM is to be sealed, by why", "cause"
)
_FAILED = gauge_family(
    "portcullis_scheduler_failed_devices", "Devices given up after MAX_TRIES, until a retry"
)
_RESYNC = gauge_family(
    "portcullis_scheduler_resynchronisation_pending",
    "1 after a restore of the database until the SMS has repeated its orders",
)
_OVERDUE = gauge_family(
    "portcullis_scheduler_archive_overdue_months",
    "Months of requests beyond their retention that are still in the database",
)
_PERIOD = gauge_family(
    "portcullis_scheduler_key_period_seconds", "Configured life of an epoch of a product key"
)
_LIVE = gauge_family(
    "portcullis_scheduler_key_live_epoch", "Epoch that content is scrambled under", "product_id"
)
_LIVE_SINCE = gauge_family(
    "portcullis_scheduler_key_live_since_timestamp_seconds",
    "When the live epoch went live",
    "product_id",
)
_SEAL = gauge_family(
    "portcullis_scheduler_key_seal_epoch", "Epoch that boxes are given now", "product_id"
)
_SWITCH_AT = gauge_family(
    "portcullis_scheduler_key_switch_timestamp_seconds",
    "When the prepared epoch is to go live; no sample where none is prepared",
    "product_id",
)


class Figures(Collector):
    """The tables as last read; without the lease, nothing: one process tells, not all."""

    def __init__(self, engine: Engine, leads: Callable[[], bool], config: SchedulerConfig) -> None:
        self._engine = engine
        self._leads = leads
        self._config = config
        self._overdue_months = 0
        self._read: tuple[QueueFigures, list[Chain], Recovery | None] | None = None

    def read(self) -> None:
        """Read the tables; raises SQLAlchemyError, and then there is nothing to tell."""
        self._read = None
        engine = self._engine
        with engine.connect() as connection:
            keep_from = database_now(connection) - self._config.requests_keep.delta
        self._overdue_months = len(due_slices(engine, keep_from))
        self._read = (queue_figures(engine), read_chains(engine), open_recovery(engine))

    def archive_notice(self) -> str | None:
        """Say that requests beyond their retention stay for want of a place."""
        if self._config.archive_dir is not None or not (self._leads() and self._overdue_months):
            return None
        return f"{self._overdue_months} months of requests are overdue: set scheduler.archive_dir"

    def collect(self) -> Iterator[Metric]:
        """Return every metric; samples only while this process leads."""
        read = self._read if self._leads() else None
        oldest, waiting, failed, period = _OLDEST(), _WAITING(), _FAILED(), _PERIOD()
        resync = _RESYNC()
        overdue = _OVERDUE()
        period.add_metric([], self._config.product_key_period)
        if read is not None:
            queue = read[0]
            oldest.add_metric([], queue.oldest_order_s)
            failed.add_metric([], queue.failed)
            resync.add_metric([], read[2] is not None)
            overdue.add_metric([], self._overdue_months)
            for cause, count in queue.waiting.items():
                waiting.add_metric([cause], count)
        yield from (oldest, waiting, failed, period, resync, overdue)
        yield from _keys([] if read is None else read[1])


def _keys(chains: list[Chain]) -> Iterator[Metric]:
    live, since, seal, switch_at = _LIVE(), _LIVE_SINCE(), _SEAL(), _SWITCH_AT()
    for chain in {chain.product_id: chain for chain in chains if chain.live_epoch}.values():
        live.add_metric([str(chain.product_id)], chain.live_epoch or 0)
        if chain.live_since is not None:
            since.add_metric([str(chain.product_id)], chain.live_since.timestamp())
    # The newest chain of a product comes last: it is the one that boxes are given.
    for chain in {chain.product_id: chain for chain in chains}.values():
        seal.add_metric([str(chain.product_id)], chain.seal_epoch)
        if chain.switch_at is not None:
            switch_at.add_metric([str(chain.product_id)], chain.switch_at.timestamp())
    yield from (live, since, seal, switch_at)
