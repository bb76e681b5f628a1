"""Wiring of `portcullis encryptor`: masters, server, health."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as grpc_health  # type: ignore[attr-defined]  # no stub
from prometheus_client import REGISTRY

from portcullis.encryptor.config import EncryptorConfig
from portcullis.encryptor.listening import GRACE_S, serving
from portcullis.encryptor.metrics import CacheMetrics
from portcullis.encryptor.sealer import Sealer
from portcullis.encryptor.servicer import SERVICE, Servicer
from portcullis.keys import Custody, ImportKey, MasterStore
from portcullis.runtime.config import ConfigSource
from portcullis.runtime.service import Service

_HEALTH_S = 1.0


async def main(source: ConfigSource) -> None:
    """Answer calls until told to stop; raises PortcullisError."""
    config = EncryptorConfig.of(source)
    masters = config.masters()
    custody = Custody(masters)
    import_key = ImportKey(config.import_key_path, custody)
    sealer = Sealer(custody, time.time)
    # One thread: sealing is bound by the interpreter, and a queue of calls is bounded.
    executor = ThreadPoolExecutor(1, "sealer")
    servicer = Servicer(
        masters, import_key, sealer, executor, max_batch=config.max_batch, allow=config.allow
    )
    health = grpc_health.HealthServicer()
    async with (
        serving(servicer, health, config) as server,
        Service("encryptor", config.monitor) as service,
    ):
        service.checks["masters"] = masters.check
        REGISTRY.register(CacheMetrics(sealer.cache_counts))
        while True:
            await _tell_health(health, masters)
            if not await service.sleep(_HEALTH_S):
                break
        await health.enter_graceful_shutdown()
        await server.stop(GRACE_S)
    executor.shutdown(wait=False, cancel_futures=True)


async def _tell_health(health: grpc_health.HealthServicer, masters: MasterStore) -> None:
    """Say over gRPC what /readyz says over HTTP (grpc.health.v1)."""
    trouble = await asyncio.to_thread(masters.check)
    status = health_pb2.HealthCheckResponse
    state = status.SERVING if trouble is None else status.NOT_SERVING
    for name in ("", SERVICE):
        await health.set(name, state)
