"""Wiring of the scheduler: lease, timetable, jobs."""

import asyncio
import os
import socket
from collections.abc import Callable
from uuid import uuid4

from apscheduler.schedulers.background import BackgroundScheduler
from prometheus_client import REGISTRY
from sqlalchemy.exc import SQLAlchemyError

from portcullis.runtime.config import ConfigSource, DatabaseConfig
from portcullis.runtime.errors import PortcullisError
from portcullis.runtime.logging import get_logger
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.runtime.service import Service
from portcullis.scheduler import metrics
from portcullis.scheduler.config import SchedulerConfig
from portcullis.scheduler.figures import FIGURES_EVERY_S, Figures
from portcullis.scheduler.jobs import RESEAL_EVERY_S, Jobs
from portcullis.scheduler.leadership import RENEW_S, Leadership
from portcullis.store.database import engine_for

log = get_logger("portcullis.scheduler")


async def main(source: ConfigSource) -> None:
    """Lead, or wait to, until told to stop."""
    config = SchedulerConfig.of(source)
    database = source.section("database", DatabaseConfig)
    engine = engine_for(database.full_url(), pool_size=database.pool_size)
    leadership = Leadership(engine, f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}")
    figures = Figures(engine, lambda: leadership.is_held, float(config.product_key_period))
    REGISTRY.register(figures)
    trouble: dict[str, str] = {}
    with EncryptorClient(config.encryptor) as client:
        jobs = Jobs(engine, client, config, lambda: leadership.is_held)
        timetable = BackgroundScheduler(
            timezone="UTC", job_defaults={"max_instances": 1, "coalesce": True}
        )
        for name, job, every_s in (
            ("chains", jobs.make_chains, 0.5),
            ("rotate", jobs.rotate, 0.5),
            ("reseal", jobs.reseal, RESEAL_EVERY_S),
            ("purge", jobs.purge, float(config.purge_every)),
            ("figures", figures.read, FIGURES_EVERY_S),
        ):
            run = _guarded(name, job, leadership, trouble)
            timetable.add_job(run, "interval", seconds=every_s, misfire_grace_time=None)
        renew = _guarded_renewal(leadership, trouble)
        async with Service("scheduler", config.monitor) as service:
            service.checks["jobs"] = lambda: "; ".join(trouble.values()) or None
            await asyncio.to_thread(renew)
            timetable.start()
            while await service.sleep(RENEW_S):
                await asyncio.to_thread(renew)
            await asyncio.to_thread(timetable.shutdown)
            await asyncio.to_thread(leadership.release)
    engine.dispose()


def _guarded(
    name: str, job: Callable[[], None], leadership: Leadership, trouble: dict[str, str]
) -> Callable[[], None]:
    """Run a job while we lead; what fails for a while is counted, shown and tried again."""

    def run() -> None:
        if not leadership.is_held:
            trouble.pop(name, None)
            return
        try:
            job()
        except (SQLAlchemyError, PortcullisError) as error:
            metrics.JOBS.labels(name, "failed").inc()
            trouble[name] = f"{name}: {type(error).__name__}"
            log.warning("job failed; it runs again", job=name, reason=_one_line(error))
        else:
            metrics.JOBS.labels(name, "done").inc()
            metrics.LAST_RUN.labels(name).set_to_current_time()
            trouble.pop(name, None)

    return run


def _guarded_renewal(leadership: Leadership, trouble: dict[str, str]) -> Callable[[], None]:
    def renew() -> None:
        try:
            leadership.renew()
        except SQLAlchemyError as error:
            trouble["lease"] = f"lease: {type(error).__name__}"
            log.warning("lease not renewed", reason=_one_line(error))
        else:
            trouble.pop("lease", None)

    return renew


def _one_line(error: Exception) -> str:
    # A statement's parameters do not belong in a log.
    text = str(error.__cause__ or error) if isinstance(error, SQLAlchemyError) else str(error)
    return text.splitlines()[0] if text else type(error).__name__
