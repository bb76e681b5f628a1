"""Wiring of the EMMG."""

import asyncio
import threading
from functools import partial

from prometheus_client import Gauge

from portcullis.emmg.config import EmmgConfig
from portcullis.emmg.worker import Worker
from portcullis.runtime.config import ConfigSource, DatabaseConfig
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.runtime.service import Service
from portcullis.store.database import engine_for
from portcullis.store.work import queue_age_s

QUEUE_AGE = Gauge("portcullis_emmg_queue_age_seconds", "Wait of the oldest order not yet sealed")


async def main(source: ConfigSource) -> None:
    """Run the EMMG until it is told to stop."""
    config = source.section("emmg", EmmgConfig)
    database = source.section("database", DatabaseConfig)
    engine = engine_for(database.full_url(), pool_size=max(database.pool_size, config.workers + 1))
    stopping = threading.Event()
    client = EncryptorClient(config.encryptor)
    workers = [Worker(engine, client, config, stopping) for _ in range(config.workers)]
    QUEUE_AGE.set_function(lambda: queue_age_s(engine))
    async with Service("emmg", config.monitor) as service:
        for number, worker in enumerate(workers):
            service.checks[f"worker{number}"] = partial(getattr, worker, "trouble")
        running = [asyncio.create_task(asyncio.to_thread(worker.run)) for worker in workers]
        stop = asyncio.create_task(service.stopping.wait())
        await asyncio.wait([stop, *running], return_when=asyncio.FIRST_COMPLETED)
        stopping.set()
        stop.cancel()
        await asyncio.gather(*running)
    client.close()
    engine.dispose()
