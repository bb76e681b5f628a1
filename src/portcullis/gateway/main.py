"""Wiring of `portcullis gateway`."""

import asyncio
import gc
import logging
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from starlette.routing import BaseRoute

from portcullis.gateway.api import Api
from portcullis.gateway.config import GatewayConfig
from portcullis.gateway.console.pages import Console
from portcullis.gateway.console.people import People
from portcullis.gateway.http import GatewayProtocol
from portcullis.gateway.requestlog import RequestLog
from portcullis.gateway.throttle import Throttle
from portcullis.gateway.token_endpoint import TokenEndpoint
from portcullis.gateway.writer import Writer
from portcullis.runtime.config import ConfigSource, DatabaseConfig
from portcullis.runtime.jwks import KeyCache, KeySource, KeysUnavailableError, key_source
from portcullis.runtime.oauth import TokenVerifier
from portcullis.runtime.service import Service, bind, serve_app, split_address
from portcullis.runtime.threads import in_thread
from portcullis.store.database import engine_for
from portcullis.store.health import DatabaseHealth
from portcullis.store.orders import apply_requests

_ANSWER_S = 5.0  # what an SMS waits for, too: then 503, and it repeats
_DRAIN_S = 3.0  # for requests under way; the server's own grace of 5 s covers what follows
_WRITE_S = 1.0
_LOG_EVERY_S = 1.0
_KEYS_EVERY_S = 1.0  # the cache asks the server far less often


async def main(source: ConfigSource) -> None:
    """Hear the SMS until told to stop; raises PortcullisError."""
    config = GatewayConfig.of(source)
    database = source.section("database", DatabaseConfig)
    logging.getLogger("authlib").setLevel(logging.WARNING)  # at debug it prints tokens
    engine = engine_for(database.full_url(), pool_size=database.pool_size, answer_s=_ANSWER_S)
    permits = config.permits
    source_of_keys, routes = _authorization(config)
    keys = KeyCache(
        source_of_keys, refresh_s=float(config.jwks_refresh), keep_s=float(config.jwks_keep)
    )
    listener = bind(*split_address(config.listen, "gateway.listen"), "gateway.listen")
    log_path = Path(config.request_log)
    with closing(
        RequestLog(log_path, config.request_log_bytes, config.request_log_files)
    ) as request_log:
        async with Service("gateway", config.monitor) as service:
            writer = Writer(
                partial(apply_requests, engine, writer=config.writer), config.max_waiting
            )
            api = Api(
                engine,
                writer,
                TokenVerifier(config.token_issuer, config.audience, keys),
                request_log,
                throttle=Throttle(config.rate_per_client_s, permits.rates),
                permits=permits,
                max_body_bytes=config.max_body_bytes,
                max_batch_bytes=config.max_batch_bytes,
            )
            health = DatabaseHealth(database.full_url(), service.clock)
            service.checks["database"] = health.check
            service.notices["restore"] = health.notice
            service.checks["writer"] = lambda: "it has ended" if writer.ended.is_set() else None
            service.checks["authorization server"] = keys.check
            service.notices["orders"] = partial(getattr, writer, "denied")
            service.notices["request log"] = request_log.notice
            console = Console(engine, writer, request_log, People(Path(config.oauth_dir)))
            server = serve_app(api.app([*routes, *console.routes()]), GatewayProtocol)
            serving = asyncio.create_task(server.serve([listener]))
            fetching = asyncio.create_task(_keep_keys(keys))
            logging_on = asyncio.create_task(_keep_log(request_log))
            ended = asyncio.create_task(writer.ended.wait())
            gc.freeze()  # what lives as long as the process is not to be gone through again
            await service.until_stopping(serving, fetching, logging_on, ended)
            fetching.cancel()
            logging_on.cancel()
            server.should_exit = True
            await service.finish("requests under way", serving, _DRAIN_S)
            await writer.stop(_WRITE_S)
            await serving
    engine.dispose()


async def _keep_keys(keys: KeyCache) -> None:
    """Have the authorization server's keys before the first token asks for them."""
    while True:
        with suppress(KeysUnavailableError):  # it is logged, and `/readyz` says so
            await keys.keys()
        await asyncio.sleep(_KEYS_EVERY_S)


async def _keep_log(request_log: RequestLog) -> None:
    """Write lines that had to wait as soon as the disk takes them."""
    while True:
        await asyncio.sleep(_LOG_EVERY_S)
        await in_thread(request_log.retry)


def _authorization(config: GatewayConfig) -> tuple[KeySource, Sequence[BaseRoute]]:
    """Whose tokens are believed: another server's, or the built-in one's, with its routes."""
    if config.jwks is not None:
        return key_source(config.jwks, config.token_issuer), []
    endpoint = TokenEndpoint(
        Path(config.oauth_dir), config.token_issuer, config.audience, int(config.token_lifetime)
    )
    return endpoint.keys, endpoint.routes()
