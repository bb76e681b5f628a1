"""Wiring of the scheduler: lease, timetable, jobs."""

import asyncio
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler
from prometheus_client import REGISTRY
from sqlalchemy.exc import SQLAlchemyError

from portcullis.runtime.clock import WallClock
from portcullis.runtime.config import ConfigSource, DatabaseConfig
from portcullis.runtime.errors import PortcullisError
from portcullis.runtime.logging import get_logger
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.runtime.service import Service
from portcullis.runtime.threads import in_thread
from portcullis.runtime.tls import TlsFiles
from portcullis.scheduler import metrics
from portcullis.scheduler.config import SchedulerConfig
from portcullis.scheduler.figures import FIGURES_EVERY_S, Figures
from portcullis.scheduler.jobs import RESEAL_EVERY_S, Jobs
from portcullis.scheduler.leadership import RENEW_S, Leadership
from portcullis.scheduler.rotating import ROTATE_EVERY_S
from portcullis.store.database import engine_for, reason_of
from portcullis.store.health import DatabaseHealth

_FINISH_S = 4.0
_RELEASE_S = 1.5

log = get_logger("portcullis.scheduler")


async def main(source: ConfigSource) -> None:
    """Lead, or wait to, until told to stop."""
    config = SchedulerConfig.of(source)
    database = source.section("database", DatabaseConfig)
    engine = engine_for(database.full_url(), pool_size=database.pool_size)
    leadership = Leadership(engine, f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}")
    figures = Figures(engine, lambda: leadership.is_held, config)
    REGISTRY.register(figures)
    trouble: dict[str, str] = {}
    async with Service("scheduler", config.monitor) as service:
        client = EncryptorClient(config.encryptor, TlsFiles.of(config.tls, "scheduler.tls"))
        jobs = Jobs(
            leadership.fenced(),
            client,
            config,
            lambda: leadership.is_held and not service.stopping.is_set(),
            doubts=partial(_doubts, service.clock),
        )
        timetable = _timetable(jobs, figures, config, leadership, trouble)
        metrics.LEADING.set_function(lambda: leadership.is_held)
        health = DatabaseHealth(database.full_url(), service.clock)
        service.checks["database"] = health.check
        service.notices["restore"] = health.notice
        service.checks["jobs"] = lambda: "; ".join(trouble.values()) or None
        service.checks["encryptor"] = client.check
        service.notices["encryptors"] = client.notice
        service.notices["lead time"] = jobs.rotation.shortfall
        service.notices["archive"] = figures.archive_notice
        renewing = asyncio.create_task(_keep_lease(leadership, trouble))
        timetable.start()
        service.on_clock_set = partial(_run_at_once, timetable)
        await service.until_stopping(renewing)
        renewing.cancel()
        service.on_clock_set = None
        jobs_end = asyncio.create_task(in_thread(timetable.shutdown))
        ended = await service.finish("jobs", jobs_end, _FINISH_S)
        client.close()  # a job whose encryptor hangs ends; what it had begun is begun again
        if ended or await service.finish("jobs", jobs_end, _RELEASE_S):
            await service.finish("lease", _release(leadership), _RELEASE_S)


def _doubts(clock: WallClock, database_now: datetime) -> str | None:
    """Why the database's time may be wrong; None where our clock goes with it, as it always has."""
    clock.compare(database_now.timestamp())
    return clock.notice()


async def _keep_lease(leadership: Leadership, trouble: dict[str, str]) -> None:
    """Take and renew the lease until cancelled."""
    while True:
        delay_s = RENEW_S
        try:
            delay_s = await in_thread(leadership.renew)
        except SQLAlchemyError as error:
            trouble["lease"] = f"lease: {reason_of(error)}"
            log.warning("lease not renewed", reason=_one_line(error))
        else:
            trouble.pop("lease", None)
        await asyncio.sleep(delay_s)


def _run_at_once(timetable: BackgroundScheduler, step_s: float) -> None:
    """Run the jobs when the clock has been set back: their times would be long in coming."""
    if step_s < 0:
        for job in timetable.get_jobs():
            job.modify(next_run_time=datetime.now(UTC))


async def _release(leadership: Leadership) -> None:
    try:
        await in_thread(leadership.release)
    except SQLAlchemyError as error:
        log.warning("lease not released: it runs out by itself", reason=_one_line(error))


def _timetable(
    jobs: Jobs,
    figures: Figures,
    config: SchedulerConfig,
    leadership: Leadership,
    trouble: dict[str, str],
) -> BackgroundScheduler:
    timetable = BackgroundScheduler(
        timezone="UTC", job_defaults={"max_instances": 1, "coalesce": True}
    )
    for name, job, every_s in (
        ("chains", jobs.make_chains, 0.5),
        ("rotate", jobs.rotate, ROTATE_EVERY_S),
        ("lead", jobs.rotation.measure, FIGURES_EVERY_S),
        ("reseal", jobs.reseal, RESEAL_EVERY_S),
        ("purge", jobs.purge, float(config.purge_every)),
        ("archive", jobs.archive, float(config.purge_every)),
        ("figures", figures.read, FIGURES_EVERY_S),
    ):
        run = _guarded(name, job, leadership, trouble)
        timetable.add_job(run, "interval", seconds=every_s, misfire_grace_time=None, id=name)

    def note(event: JobExecutionEvent) -> None:
        metrics.JOBS.labels(event.job_id, "failed").inc()
        trouble[event.job_id] = f"{event.job_id}: {type(event.exception).__name__}"

    # What `_guarded` lets through is a bug: the library logs it with its trace.
    timetable.add_listener(note, EVENT_JOB_ERROR)
    return timetable


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
            trouble[name] = f"{name}: {reason_of(error)}"
            log.warning("job failed; it runs again", job=name, reason=_one_line(error))
        else:
            metrics.JOBS.labels(name, "done").inc()
            metrics.LAST_RUN.labels(name).set_to_current_time()
            trouble.pop(name, None)

    return run


def _one_line(error: Exception) -> str:
    # A statement's parameters do not belong in a log.
    text = str(error.__cause__ or error) if isinstance(error, SQLAlchemyError) else str(error)
    return text.splitlines()[0] if text else type(error).__name__
