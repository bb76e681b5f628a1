"""The pages: routes, who may see them, and what each reads."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from portcullis.gateway import metrics
from portcullis.gateway.answers import request_state
from portcullis.gateway.console import charts
from portcullis.gateway.console.forms import checked_form, is_own, own_path, read_form
from portcullis.gateway.console.people import MAX_NAME_CHARS, SESSION_S, People, Session
from portcullis.gateway.console.rendering import render
from portcullis.gateway.orders import (
    device_number,
    is_request_id,
    is_transaction_id,
    rehit_order,
)
from portcullis.gateway.problems import ProblemError
from portcullis.gateway.requestlog import RequestLog
from portcullis.gateway.throttle import Throttle
from portcullis.gateway.writer import Writer
from portcullis.runtime.logging import get_logger
from portcullis.store.database import reason_of
from portcullis.store.figures import queue_figures
from portcullis.store.lives import (
    device_life,
    is_known,
    recent_refusals,
    requests_of_transaction,
)
from portcullis.store.orders import Refused
from portcullis.store.reads import catalogue, request_by_id
from portcullis.store.rekey import read_rotations
from portcullis.store.rotation import read_chains
from portcullis.store.streams import next_airings, stream_figures

CLIENT = "console"
COOKIE = "__Host-portcullis"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_STATIC = Path(__file__).parent / "static"
_ATTEMPTS_S = 2.0  # passwords are made, not chosen: this spares the processor
_LATEST_REQUESTS, _LATEST_REFUSALS, _OVERVIEW_REFUSALS = 10, 100, 5

log = get_logger("portcullis.gateway.console")

Page = Callable[[Request, Session], Awaitable[Response]]


class _NotThereError(Exception):
    """There is no such page, device or request; the text says which."""


class Console:
    """The pages over a database, a writer of orders, and the request log."""

    def __init__(
        self, engine: Engine, writer: Writer, request_log: RequestLog, people: People
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._request_log = request_log
        self._people = people
        self._attempts = Throttle(_ATTEMPTS_S)
        self._one_hash_at_a_time = asyncio.Semaphore(1)

    def routes(self) -> list[BaseRoute]:
        """Everything under `/console`."""
        return [
            Route("/console/login", self._login_page, methods=["GET"]),
            Route("/console/login", self._login, methods=["POST"]),
            Mount("/console/static", _Static(directory=_STATIC)),
            self._page("/console", self._overview),
            self._page("/console/search", self._search),
            self._page("/console/devices/{device_id}", self._device),
            self._page("/console/requests/{request_id}", self._request),
            self._page("/console/carousel", self._carousel),
            self._page("/console/keys", self._keys),
            self._page("/console/refusals", self._refusals),
            self._page("/console/devices/{device_id}/rehit", self._rehit, "POST"),
            self._page("/console/logout", self._logout, "POST"),
        ]

    def _page(self, path: str, page: Page, method: str = "GET") -> Route:
        name = f"console{path.removeprefix('/console').split('{')[0].rstrip('/')}"

        async def endpoint(request: Request) -> Response:
            session = self._people.session(request.cookies.get(COOKIE, ""))
            if session is None:
                return _to_login(request)
            started = time.perf_counter()
            outcome = "ok"
            try:
                response = await page(request, session)
            except _NotThereError as error:
                outcome = "not_found"
                response = _problem(session, 404, "Not found", str(error))
            except ProblemError as error:
                outcome = error.code
                response = _problem(session, error.status, "Not done", error.detail)
            except SQLAlchemyError as error:
                outcome = "unavailable"
                log.warning("not answered", call=name, error=reason_of(error))
                response = _problem(
                    session, 503, "Not available", "The database is away. Reload in a moment."
                )
            metrics.REQUESTS.labels("console", outcome).inc()
            self._note(
                request,
                name,
                session.name,
                outcome,
                path=request.url.path,
                ms=round((time.perf_counter() - started) * 1000, 1),
            )
            return response

        return Route(path, endpoint, methods=[method])

    def _note(self, request: Request, call: str, by: str, outcome: str, **fields: object) -> None:
        client = request.client
        self._request_log.write(
            {
                "time": datetime.now(UTC),
                "call": call,
                "client_id": CLIENT,
                "by": by,
                "from": client.host if client else None,
                "outcome": outcome,
                **fields,
            }
        )

    async def _login_page(self, request: Request) -> Response:
        return self._login_form(request.query_params.get("next", ""))

    def _login_form(self, next_: str, status: int = 200, problem: str = "") -> Response:
        return _html(
            render(
                "login.html",
                next=own_path(next_),
                problem=problem,
                nobody=not self._people.all(),
                session=None,
            ),
            status,
        )

    async def _login(self, request: Request) -> Response:
        form = await read_form(request)
        name, next_ = form.get("name", "").strip()[:MAX_NAME_CHARS], form.get("next", "")
        if not is_own(request):
            return self._login_form(next_, 403, "The form came from another site.")
        client = request.client
        try:
            self._attempts.check(f"{client.host if client else ''} {name}", time.monotonic())
        except ProblemError as error:
            self._note(request, "console/login", name, error.code)
            wait = error.headers["Retry-After"]
            return self._login_form(next_, 429, f"Too many attempts. Wait {wait} s.")
        async with self._one_hash_at_a_time:
            token = await asyncio.to_thread(self._people.sign_in, name, form.get("password", ""))
        self._note(request, "console/login", name, "ok" if token else "unauthenticated")
        if token is None:
            return self._login_form(next_, 401, "Name or password is wrong.")
        response = _see(own_path(next_))
        response.set_cookie(
            COOKIE, token, SESSION_S, path="/", secure=True, httponly=True, samesite="lax"
        )
        return response

    async def _logout(self, request: Request, session: Session) -> Response:
        await checked_form(request, session)
        response = _see("/console/login")
        response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return response

    async def _overview(self, _request: Request, session: Session) -> Response:
        queue, streams, refusals = await asyncio.gather(
            asyncio.to_thread(queue_figures, self._engine),
            asyncio.to_thread(stream_figures, self._engine),
            asyncio.to_thread(recent_refusals, self._engine, _OVERVIEW_REFUSALS),
        )
        return _shown(
            "overview.html",
            session,
            here="/console",
            refresh=5,
            queue=queue,
            streams=streams,
            refusals=refusals,
        )

    async def _search(self, request: Request, session: Session) -> Response:
        """One hit is shown at once; a number may be a device and a transaction."""
        q = request.query_params.get("q", "").strip()
        if is_request_id(q.lower()):
            found = await asyncio.to_thread(request_by_id, self._engine, None, q.lower())
            if found is not None:
                return _see(f"/console/requests/{found.request_id}")
        device = device_number(q)
        if device is not None and not await asyncio.to_thread(is_known, self._engine, device):
            device = None
        records = (
            await asyncio.to_thread(requests_of_transaction, self._engine, q)
            if is_transaction_id(q)
            else []
        )
        if device is not None and not records:
            return _see(f"/console/devices/{device}")
        if device is None and len(records) == 1:
            return _see(f"/console/requests/{records[0].request_id}")
        return _shown(
            "found.html",
            session,
            200 if device or records else 404,
            q=q,
            device=device,
            requests=[(one, request_state(one)) for one in records],
        )

    async def _device(self, request: Request, session: Session) -> Response:
        device_id = _device_of(request)
        life = await asyncio.to_thread(device_life, self._engine, device_id, _LATEST_REQUESTS)
        if life is None:
            raise _NotThereError(f"Device {device_id} was never added.")
        sent = request.query_params.get("sent", "")
        return _shown(
            "device.html",
            session,
            refresh=2,
            q=device_id,
            life=life,
            now=datetime.now(UTC),
            once=uuid4().hex,
            sent=sent if is_request_id(sent) else None,
            requests=[(one, request_state(one)) for one in life.requests],
        )

    async def _request(self, request: Request, session: Session) -> Response:
        request_id = request.path_params["request_id"]
        record = (
            await asyncio.to_thread(request_by_id, self._engine, None, request_id)
            if is_request_id(request_id)
            else None
        )
        if record is None:
            raise _NotThereError("There is no such request.")
        due = []
        if record.device_id is not None:
            streams = await asyncio.to_thread(stream_figures, self._engine)
            due = await asyncio.to_thread(next_airings, self._engine, record.device_id, streams)
        return _shown(
            "request.html",
            session,
            refresh=2,
            q=request_id,
            record=record,
            state=request_state(record),
            next_airings=due,
            now=datetime.now(UTC),
        )

    async def _carousel(self, _request: Request, session: Session) -> Response:
        streams = await asyncio.to_thread(stream_figures, self._engine)
        pictures = [
            (one, charts.bandwidth(one.history) if one.history else None) for one in streams
        ]
        return _shown(
            "carousel.html",
            session,
            here="/console/carousel",
            refresh=5,
            streams=streams,
            charts=pictures,
        )

    async def _keys(self, _request: Request, session: Session) -> Response:
        chains, rotations, products = await asyncio.gather(
            asyncio.to_thread(read_chains, self._engine),
            asyncio.to_thread(read_rotations, self._engine),
            asyncio.to_thread(catalogue, self._engine),
        )
        return _shown(
            "keys.html",
            session,
            here="/console/keys",
            refresh=5,
            chains=chains,
            rotations=[one for one in rotations if one.switched_at is None],
            names={row.product_id: row.name for row in products},
        )

    async def _refusals(self, _request: Request, session: Session) -> Response:
        refusals = await asyncio.to_thread(recent_refusals, self._engine, _LATEST_REFUSALS)
        return _shown(
            "refusals.html",
            session,
            here="/console/refusals",
            refusals=refusals,
            latest=_LATEST_REFUSALS,
        )

    async def _rehit(self, request: Request, session: Session) -> Response:
        form = await checked_form(request, session)
        if not session.may_rehit:
            raise ProblemError("insufficient_scope", "Sending again needs the role help-desk.")
        device_id = _device_of(request)
        once = form.get("once", "")
        if not is_request_id(once):
            raise ProblemError("invalid_value", "The form is not complete: reload the page.")
        # Sent twice, the form is one order: its id is the transaction's.
        order = rehit_order(CLIENT, device_id, session.name, once)
        [result] = await self._writer.submit([order])
        metrics.ORDERS.labels(
            "rehit", result.code if isinstance(result, Refused) else "accepted"
        ).inc()
        if isinstance(result, Refused):
            raise ProblemError(result.code, result.detail)
        return _see(f"/console/devices/{device_id}?sent={result.request_id}")


class _Static(StaticFiles):
    """The console's own files, with its headers."""

    async def get_response(self, path: str, scope: Any) -> Response:  # noqa: ANN401 (Starlette's)
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS | {"Cache-Control": "max-age=300"})
        return response


def _device_of(request: Request) -> int:
    device_id = device_number(request.path_params["device_id"])
    if device_id is None:
        raise _NotThereError("A device id is a decimal number below 2^40.")
    return device_id


def _shown(template: str, session: Session, status: int = 200, **values: object) -> Response:
    return _html(render(template, session=session, **values), status)


def _problem(session: Session, status: int, title: str, detail: str) -> Response:
    return _shown("problem.html", session, status, title=title, detail=detail)


def _html(text: str, status: int = 200) -> Response:
    return Response(text, status, _HEADERS, "text/html")


def _see(path: str) -> Response:
    return RedirectResponse(path, 303, _HEADERS)


def _to_login(request: Request) -> Response:
    if request.method != "GET":
        return _see("/console/login")
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return _see(f"/console/login?next={quote(here, safe='')}")
