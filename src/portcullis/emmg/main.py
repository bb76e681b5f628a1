"""Wiring of the EMMG."""

import asyncio
import threading
from functools import partial

from portcullis.emmg.config import EmmgConfig
from portcullis.emmg.worker import Worker
from portcullis.runtime.config import ConfigSource, DatabaseConfig
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.runtime.service import Service
from portcullis.store.database import engine_for


async def main(source: ConfigSource) -> None:
    """Run the EMMG until it is told to stop."""
    config = source.section("emmg", EmmgConfig)
    database = source.section("database", DatabaseConfig)
    engine = engine_for(database.full_url(), pool_size=max(database.pool_size, config.workers + 1))
    stopping = threading.Event()
    client = EncryptorClient(config.encryptor)
    workers = [Worker(engine, client, config, stopping) for _ in range(config.workers)]
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
