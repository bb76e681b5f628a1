"""Wiring of the scheduler."""

import asyncio

from portcullis.runtime.config import ConfigSource, DatabaseConfig
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.runtime.service import Service
from portcullis.scheduler.config import SchedulerConfig
from portcullis.store.database import engine_for
from portcullis.store.keys import insert_chain, products_without_chain


async def main(source: ConfigSource) -> None:
    """Run until told to stop."""
    config = source.section("scheduler", SchedulerConfig)
    engine = engine_for(source.section("database", DatabaseConfig).full_url())
    client = EncryptorClient(config.encryptor)

    def make_chains() -> None:
        for product_id in products_without_chain(engine):
            insert_chain(engine, client.make_chain(product_id, 1, config.chain_epochs))

    async with Service("scheduler", config.monitor) as service:
        while await service.sleep(0.5):
            await asyncio.to_thread(make_chains)
