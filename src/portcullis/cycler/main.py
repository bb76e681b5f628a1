"""Wiring of `portcullis cycler`: one follower, a task set per stream."""

import asyncio
import gc
import os
import secrets
import socket
from collections.abc import Awaitable, Sequence
from functools import partial
from pathlib import Path

from prometheus_client import REGISTRY
from sqlalchemy import Engine

from portcullis.cycler.asrun import AsRunWriter
from portcullis.cycler.config import CyclerConfig
from portcullis.cycler.follower import DatabaseClock, Follower
from portcullis.cycler.metrics import CyclerMetrics
from portcullis.cycler.reports import AsRunReports, FirstAiringReports
from portcullis.cycler.stream import Stream, tick_s
from portcullis.runtime.clock import WallClock
from portcullis.runtime.config import ConfigSource, DatabaseConfig
from portcullis.runtime.memory import share_one_heap
from portcullis.runtime.service import Service
from portcullis.store.database import engine_for

_FEED_LATE_S = 5.0
_GOODBYE_S = 3.0
_LAST_WRITES_S = 3.0


async def main(source: ConfigSource) -> None:
    """Air until told to stop; raises PortcullisError."""
    share_one_heap()
    config = CyclerConfig.of(source)
    database = source.section("database", DatabaseConfig)
    engine = engine_for(database.full_url(), pool_size=database.pool_size)
    clock = DatabaseClock()
    first_airings = FirstAiringReports(engine)
    streams = _streams(config, engine, clock, first_airings)
    follower = Follower(engine, [stream.carousel for stream in streams], clock)
    metrics = CyclerMetrics(streams, follower, first_airings, clock)
    REGISTRY.register(metrics)
    try:
        async with Service("cycler", config.monitor) as service, asyncio.TaskGroup() as group:
            service.checks["feed"] = partial(_feed_check, follower, clock, service.clock)
            for stream in streams:
                service.checks[f"stream {stream.config.name}"] = stream.check
                service.notices[f"lease {stream.config.name}"] = stream.notice
                service.notices[f"as-run log {stream.config.name}"] = stream.asrun.notice
            coroutines = [
                follower.run(config.poll),
                _pass_news(follower, streams),
                first_airings.run(),
                *(_work(stream, follower) for stream in streams),
            ]
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
            links = [group.create_task(stream.link.run()) for stream in streams]
            gc.freeze()  # what is there already is not to be gone through while EMMs are loaded
            await service.stopping.wait()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            # The multiplexer first: whether database or disk answer or not, it is told.
            goodbyes = asyncio.gather(*(stream.say_goodbye() for stream in streams))
            await service.finish("goodbye", goodbyes, _GOODBYE_S)
            for link in links:
                link.cancel()
            last_writes: dict[str, Awaitable[object]] = {"first airings": first_airings.flush()}
            for stream in streams:
                last_writes[f"lease {stream.config.name}"] = stream.let_go()
                last_writes[f"as-run log {stream.config.name}"] = stream.asrun.flush()
            await asyncio.gather(
                *(service.finish(what, one, _LAST_WRITES_S) for what, one in last_writes.items())
            )
    finally:
        REGISTRY.unregister(metrics)
        for stream in streams:
            stream.asrun.writer.close()
        engine.dispose()


def _streams(
    config: CyclerConfig, engine: Engine, clock: DatabaseClock, first_airings: FirstAiringReports
) -> list[Stream]:
    holder = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
    streams, turn = [], asyncio.Lock()
    for one in config.stream:
        directory = Path(config.asrun_dir) / one.name.replace(":", "-")
        keep_bytes = config.asrun_keep_mb << 20
        asrun = AsRunReports(AsRunWriter(directory, config.asrun_keep_days, keep_bytes), turn)
        streams.append(
            Stream(
                one,
                engine,
                holder,
                clock,
                tick_s=tick_s(len(config.stream)),
                first_airings=first_airings,
                asrun=asrun,
            )
        )
    return streams


async def _work(stream: Stream, follower: Follower) -> None:
    """Air one stream, once there is something to air."""
    async with asyncio.TaskGroup() as group:
        group.create_task(stream.asrun.run())
        await follower.loaded.wait()
        group.create_task(stream.keep_lease())
        group.create_task(stream.air())


async def _pass_news(follower: Follower, streams: Sequence[Stream]) -> None:
    """Wake the streams when the feed has brought something."""
    while True:
        await follower.changed.wait()
        follower.changed.clear()
        for stream in streams:
            stream.wake.set()


def _feed_check(follower: Follower, clock: DatabaseClock, ours: WallClock) -> str | None:
    if not follower.loaded.is_set():
        return "loading"
    ours.compare(clock.wall())
    age_s = clock.now() - follower.read_at
    return None if age_s < _FEED_LATE_S else f"the feed was last read {age_s:.0f} s ago"
