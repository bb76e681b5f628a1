"""A gateway in this process, on a real database, as an SMS sees it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from joserfc.jwk import ECKey
from sqlalchemy import Engine, select
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from portcullis.gateway.api import Api
from portcullis.gateway.permits import ClientConfig, Permits
from portcullis.gateway.requestlog import RequestLog
from portcullis.gateway.throttle import Throttle
from portcullis.gateway.writer import Writer
from portcullis.runtime.jwks import KeyCache
from portcullis.runtime.oauth import SCOPES, TokenVerifier, issue_token
from portcullis.runtime.service import bind, serve_app
from portcullis.store.database import engine_for, writing
from portcullis.store.orders import apply_requests
from portcullis.store.schema import device_work, keys, requests

ISSUER = "https://as.example"
KEY = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)


def token(client_id: str = "sms", scopes: tuple[str, ...] = SCOPES) -> str:
    """A token of the authorization server that the gateway believes."""
    return issue_token(
        KEY,
        issuer=ISSUER,
        audience="portcullis",
        client_id=client_id,
        scopes=scopes,
        lifetime_s=600,
    )


@dataclass
class Sms:
    """An SMS and, for the checks, what lies behind the gateway."""

    http: httpx.AsyncClient
    engine: Engine
    log: Path
    app: Starlette

    @asynccontextmanager
    async def served(
        self, protocol: type[HttpToolsProtocol] = HttpToolsProtocol
    ) -> AsyncIterator[str]:
        """The same gateway over TCP; its base URL."""
        listener = bind("127.0.0.1", 0, "test")
        listener.listen()  # who comes before the server does is kept waiting, not turned away
        server = serve_app(self.app, protocol)
        server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]  # in a thread
        task = asyncio.create_task(server.serve([listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task

    async def post(self, path: str, **body: object) -> httpx.Response:
        """Send one order."""
        return await self.http.post(path, json=body)

    async def get(self, path: str, **params: str) -> Any:  # noqa: ANN401 (JSON)
        """Read; the answer must be 200."""
        response = await self.http.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    def request_rows(self) -> list[Any]:
        """The `requests` table in order of arrival."""
        with self.engine.connect() as connection:
            return list(connection.execute(select(requests).order_by(requests.c.request_id)).all())

    def work(self, device_id: int) -> Any:  # noqa: ANN401 (a row)
        """The device's row of `device_work`."""
        with self.engine.connect() as connection:
            return connection.execute(
                select(device_work).where(device_work.c.device_id == device_id)
            ).one()

    def log_lines(self) -> list[dict[str, Any]]:
        """The request log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def give_keys(engine: Engine, *device_ids: int) -> None:
    """Put key rows there, as an import would."""
    with writing(engine) as connection:
        connection.execute(
            keys.insert(),
            [
                {
                    "purpose": "device",
                    "owner": device_id,
                    "first_epoch": 0,
                    "last_epoch": 65535,
                    "master_id": "m1",
                    "sealed_key": b"sealed",
                    "created_at": datetime.now(UTC),
                }
                for device_id in device_ids
            ],
        )


@asynccontextmanager
async def gateway(
    database_url: str,
    log: Path,
    bearer: str | None = None,
    rate_s: float = 1e6,
    clients: Sequence[ClientConfig] = (),
    *,
    routes: Sequence[BaseRoute] = (),
) -> AsyncIterator[Sms]:
    """A gateway with its own engine, and an SMS that talks to it."""
    engine = engine_for(database_url)
    permits = Permits(clients)
    writer = Writer(partial(apply_requests, engine), 50_000)
    request_log = RequestLog(log, 10_000_000, 2)
    api = Api(
        engine,
        writer,
        TokenVerifier(
            ISSUER, "portcullis", KeyCache(lambda: {"keys": [KEY.as_dict(private=False)]})
        ),
        request_log,
        throttle=Throttle(rate_s, permits.rates),
        permits=permits,
        max_body_bytes=65_536,
        max_batch_bytes=16_777_216,
    )
    app = api.app(routes)
    transport = httpx.ASGITransport(app=app)
    headers = {"Authorization": f"Bearer {bearer or token()}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://gateway", headers=headers
    ) as http:
        yield Sms(http, engine, log, app)
    await writer.stop(10)
    request_log.close()
    engine.dispose()
