"""Start and stop: what is the same in every room's `main`.

A service is an asyncio program that works until it is told to stop. SIGTERM
and SIGINT set `Service.stopping`; the room finishes what it holds and
returns, within ten seconds whatever hangs. Beside it runs a small HTTP server
with `/metrics` (Prometheus), `/livez` (the event loop turns) and `/readyz`
(each named check passes; docs/operations/health.md).
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from importlib.metadata import version
from types import TracebackType
from typing import Any, NoReturn, Self

import uvicorn
import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from portcullis.runtime.clock import WallClock
from portcullis.runtime.config import ConfigError
from portcullis.runtime.errors import PortcullisError
from portcullis.runtime.logging import get_logger
from portcullis.runtime.metrics import BUILD, DEGRADED, FAILING
from portcullis.runtime.threads import in_thread

Check = Callable[[], str | None]
"""A readiness check: None when all is well, else one line that says what is not. May block."""

_ANSWER_S = 0.5  # what a check may take before it counts as unanswered
_MONITOR_GRACE_S = 1
_LOOK_AT_CLOCK_S = 1.0
KEEP_ALIVE_S = 75
"""An idle connection: the client ends it first, as a request that meets the end gets no answer."""

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
    """One running process: its stop event, its checks, its monitoring port.

    Attributes:
        stopping: set by SIGTERM and SIGINT.
        checks: what must pass for `/readyz` to answer 200.
        notices: what is wrong though the work goes on: 200, "degraded".
        clock: the wall clock; looked at each second.
        on_clock_set: called with the seconds by which somebody has set it.
    """

    def __init__(self, name: str, monitor: str) -> None:
        self.name = name
        self.stopping = asyncio.Event()
        self.checks: dict[str, Check] = {}
        self.clock = WallClock()
        self.on_clock_set: Callable[[float], None] | None = None
        self.notices: dict[str, Check] = {"clock": self.clock.notice}
        self._asked: dict[str, asyncio.Future[str | None]] = {}
        self._listener = bind(*split_address(monitor, f"{name}.monitor"), f"{name}.monitor")
        routes = [
            Route("/metrics", self._metrics),
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
        ]
        self._server = serve_app(Starlette(routes=routes), grace_s=_MONITOR_GRACE_S)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        self._tasks = [
            asyncio.create_task(self._server.serve([self._listener])),
            asyncio.create_task(self._watch_clock()),
        ]
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
        serving, watching = self._tasks
        watching.cancel()
        await serving
        log.info("stopped")

    async def sleep(self, seconds: float) -> bool:
        """Wait, but not beyond a stop; returns whether the service goes on."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return True
        return False

    async def until_stopping(self, *tasks: asyncio.Task[Any]) -> None:
        """Wait for the stop. A task that ends before it raises its error, or RuntimeError."""
        stop = asyncio.create_task(self.stopping.wait())
        done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for task in done - {stop}:
            task.result()
            if not self.stopping.is_set():
                raise RuntimeError("a task of the service has ended by itself")

    async def _watch_clock(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AT_CLOCK_S)
            step_s = self.clock.stepped()
            if step_s and self.on_clock_set is not None:
                self.on_clock_set(step_s)

    async def finish(self, what: str, last_work: Awaitable[object], within_s: float) -> bool:
        """Await the last work of a stop, but not for ever; False, and a warning, if it hangs."""
        task = asyncio.ensure_future(last_work)
        done, _ = await asyncio.wait([task], timeout=within_s)
        if not done:
            log.warning("left unfinished at the stop", what=what, waited_s=within_s)
            return False
        task.result()
        return True

    async def _metrics(self, _request: Request) -> Response:
        failed, degraded = await self._trouble()
        for name in self.checks:
            FAILING.labels(name).set(name in failed)
        for name in self.notices:
            DEGRADED.labels(name).set(name in degraded)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def _livez(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _readyz(self, _request: Request) -> Response:
        failed, degraded = await self._trouble()
        if self.stopping.is_set():
            failed["service"] = "stopping"
        status = "failed" if failed else "degraded" if degraded else "ok"
        body = {"status": status, "failed": failed, "degraded": degraded}
        return JSONResponse(body, status_code=503 if failed else 200)

    async def _trouble(self) -> tuple[dict[str, str], dict[str, str]]:
        """What fails and what is degraded, by check, each with its reason."""
        return await asyncio.gather(self._ask(self.checks), self._ask(self.notices))

    async def _ask(self, checks: Mapping[str, Check]) -> dict[str, str]:
        """What is wrong, by check. All are asked at once; none is asked again while it hangs."""
        for name, check in checks.items():
            if name not in self._asked or self._asked[name].done():
                self._asked[name] = asyncio.ensure_future(in_thread(check))
        answers = {name: self._asked[name] for name in checks}
        if answers:
            await asyncio.wait(answers.values(), timeout=_ANSWER_S)
        reasons = {
            name: answer.result() if answer.done() else f"no answer within {_ANSWER_S:g} s"
            for name, answer in answers.items()
        }
        return {name: reason for name, reason in reasons.items() if reason is not None}


def serve_app(
    app: Starlette, protocol: type[HttpToolsProtocol] = HttpToolsProtocol, grace_s: int = 5
) -> EmbeddedServer:
    """A server for `app`, to be run with `serve([listener])` and ended with `should_exit`.

    It then gives requests under way `grace_s` seconds.
    """
    return EmbeddedServer(
        uvicorn.Config(
            app,
            http=protocol,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=grace_s,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    )


def run(main: Callable[[], Awaitable[None]]) -> NoReturn:
    """Run a service's coroutine on uvloop; when it returns, the process ends with status 0.

    Raises PortcullisError; any other error is logged, and the process ends with status 1.
    """

    async def go() -> None:
        await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(go())
        except PortcullisError:
            raise
        except Exception:
            log.exception("ended by an error")
            _leave(1)
        _leave(0)


def _leave(status: int) -> NoReturn:
    """End the process now: the interpreter would wait for threads, and one of them may hang."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
