"""Wiring of the EMMG."""

import asyncio
import gc
import threading
from functools import partial

from portcullis.emmg.config import EmmgConfig
from portcullis.emmg.renewal import keep_claims
from portcullis.emmg.worker import Worker
from portcullis.runtime.config import ConfigSource, DatabaseConfig
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.runtime.service import Service
from portcullis.runtime.threads import in_thread
from portcullis.runtime.tls import TlsFiles
from portcullis.store.database import engine_for
from portcullis.store.health import DatabaseHealth

_FINISH_S = 4.5
_GIVE_BACK_S = 2.0
_OBJECTS_OF_BATCHES = 50_000


async def main(source: ConfigSource) -> None:
    """Run the EMMG until it is told to stop."""
    config = EmmgConfig.of(source)
    database = source.section("database", DatabaseConfig)
    engine = engine_for(database.full_url(), pool_size=max(database.pool_size, config.workers + 1))
    stopping = threading.Event()
    client = EncryptorClient(config.encryptor, TlsFiles.of(config.tls, "emmg.tls"))
    workers = [Worker(engine, client, config, stopping) for _ in range(config.workers)]
    async with Service("emmg", config.monitor) as service:
        for number, worker in enumerate(workers):
            service.checks[f"worker{number}"] = partial(getattr, worker, "trouble")
        service.checks["database"] = DatabaseHealth(database.full_url(), service.clock).check
        service.checks["encryptor"] = client.check
        service.notices["encryptors"] = client.notice
        running = [asyncio.create_task(in_thread(worker.run)) for worker in workers]
        renewing = asyncio.create_task(keep_claims(engine, workers, config.claim_hold))
        # What lives as long as the process, and what a batch makes and drops, is not to be gone
        # through with each batch.
        gc.freeze()
        gc.set_threshold(_OBJECTS_OF_BATCHES)
        await service.until_stopping(*running, renewing)
        stopping.set()
        all_done = asyncio.gather(*running)
        if not await service.finish("batches", all_done, _FINISH_S):
            # A worker whose encryptor hangs gives its claims back once the call is cancelled; one
            # whose database hangs leaves them to come due by themselves.
            client.close()
            await service.finish("claims", all_done, _GIVE_BACK_S)
        renewing.cancel()
    client.close()
