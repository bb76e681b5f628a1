"""Start and stop: what is the same in every room's `main`.

A service is an asyncio program that works until it is told to stop. SIGTERM
and SIGINT set `Service.stopping`; the room finishes what it holds and
returns. Beside it runs a small HTTP server with `/metrics` (Prometheus),
`/livez` (the event loop turns) and `/readyz` (each named check passes).
"""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from importlib.metadata import version
from types import TracebackType
from typing import Self

import uvicorn
import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from portcullis.runtime.config import ConfigError
from portcullis.runtime.logging import get_logger
from portcullis.runtime.metrics import BUILD

Check = Callable[[], str | None]
"""A readiness check: None when all is well, else one line that says what is not."""

log = get_logger("portcullis.runtime")


class EmbeddedServer(uvicorn.Server):
    """A uvicorn server that leaves the signals to the service."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: `Service` hears them."""
        yield


def bind(host: str, port: int, key: str) -> socket.socket:
    """Bind a TCP listener now, so that a taken port is a clear error; raises ConfigError."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"{key}: cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def split_address(address: str, key: str) -> tuple[str, int]:
    """Read "host:port"; raises ConfigError that names the key."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 (the highest port)
        raise ConfigError(f'{key}: expected "host:port", got {address!r}')
    return host.strip("[]"), int(port)


class Service(AbstractAsyncContextManager["Service"]):
    """One running process: its stop event, its checks, its monitoring port."""

    def __init__(self, name: str, monitor: str) -> None:
        self.name = name
        self.stopping = asyncio.Event()
        self.checks: dict[str, Check] = {}
        self._listener = bind(*split_address(monitor, f"{name}.monitor"), f"{name}.monitor")
        routes = [
            Route("/metrics", self._metrics),
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
        ]
        self._server = serve_app(Starlette(routes=routes))
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        self._task = asyncio.create_task(self._server.serve([self._listener]))
        BUILD.labels(version("portcullis-cas")).set(1)
        log.info("started")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        log.info("stopped")

    async def sleep(self, seconds: float) -> bool:
        """Wait, but not beyond a stop; returns whether the service goes on."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return True
        return False

    async def _metrics(self, _request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def _livez(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _readyz(self, _request: Request) -> Response:
        failed = {}
        for name, check in self.checks.items():
            if (reason := await asyncio.to_thread(check)) is not None:
                failed[name] = reason
        if self.stopping.is_set():
            failed["service"] = "stopping"
        body = {"status": "degraded" if failed else "ok", "failed": failed}
        return JSONResponse(body, status_code=503 if failed else 200)


def serve_app(
    app: Starlette, protocol: type[HttpToolsProtocol] = HttpToolsProtocol
) -> EmbeddedServer:
    """A server for `app`, to be run with `serve([listener])` and ended with `should_exit`."""
    return EmbeddedServer(
        uvicorn.Config(
            app,
            http=protocol,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
    )


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a service's coroutine on uvloop until it returns."""

    async def go() -> None:
        await main()

    uvloop.run(go())
