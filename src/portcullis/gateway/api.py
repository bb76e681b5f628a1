"""The SMS-CAS interface: from HTTP to orders and back."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from portcullis.gateway import metrics, openapi
from portcullis.gateway.answers import (
    BatchLine,
    Catalogue,
    OrderAccepted,
    Product,
    device_state,
    request_state,
)
from portcullis.gateway.orders import (
    ORDERS,
    device_number,
    is_request_id,
    is_transaction_id,
    read_batch_line,
    read_order,
    read_product,
)
from portcullis.gateway.permits import NOBODY, Caller, Permits
from portcullis.gateway.problems import (
    ProblemError,
    insufficient_scope,
    problem_response,
    unauthenticated,
)
from portcullis.gateway.requestlog import RequestLog
from portcullis.gateway.throttle import Sampler, Throttle
from portcullis.gateway.writer import GROUP, UNWRITABLE, Writer
from portcullis.runtime.jwks import KeysUnavailableError
from portcullis.runtime.logging import get_logger
from portcullis.runtime.oauth import Grant, InvalidTokenError, TokenVerifier
from portcullis.store.applying import Refusal
from portcullis.store.database import reason_of
from portcullis.store.orders import Accepted, NewRequest, Result
from portcullis.store.reads import (
    RequestRecord,
    catalogue,
    device_record,
    request_by_id,
    request_by_transaction,
)

MAX_BATCH_LINES = 10_000
_Answered = tuple[NewRequest, Result]
_SAMPLED = ("unauthenticated", "rate_limited")

log = get_logger("portcullis.gateway")


@dataclass
class Call:
    """One HTTP request on its way; `fields` go into its line of the request log."""

    name: str
    request: Request
    caller: Caller = NOBODY
    fields: dict[str, object] = field(default_factory=dict)


Handler = Callable[[Call], Awaitable[Response]]


class Api:
    """The calls of the interface, on a writer, a database and a request log."""

    def __init__(
        self,
        engine: Engine,
        writer: Writer,
        verifier: TokenVerifier,
        request_log: RequestLog,
        *,
        throttle: Throttle,
        permits: Permits,
        max_body_bytes: int,
        max_batch_bytes: int,
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._verifier = verifier
        self._request_log = request_log
        self._throttle = throttle
        self._permits = permits
        self._samplers = {code: Sampler() for code in _SAMPLED}
        self._max_body_bytes = max_body_bytes
        self._max_batch_bytes = max_batch_bytes

    def app(self, more: Sequence[BaseRoute] = ()) -> Starlette:
        """The ASGI application, with `more` routes beside the interface's own."""
        document = msgspec.json.format(msgspec.json.encode(openapi.document()))

        async def serve_document(_request: Request) -> Response:
            return Response(document, media_type="application/json")

        routes: list[BaseRoute] = [
            *(self._route(f"/{kind}", kind, "POST", self._order) for kind in ORDERS),
            self._route("/batch", "batch", "POST", self._batch),
            self._route("/requests/{request_id}", "getrequest", "GET", self._request_by_id),
            self._route("/requests", "getrequest", "GET", self._request_by_transaction),
            self._route("/devices/{device_id}", "getdevice", "GET", self._device),
            self._route("/products/{product_id}", "putproduct", "PUT", self._put_product),
            self._route("/products", "getproducts", "GET", self._products),
            Route("/openapi.json", serve_document),
            *more,
        ]
        return Starlette(
            routes=routes,
            exception_handlers={HTTPException: _http_problem, Exception: _unknown_problem},
        )

    def _route(self, path: str, name: str, method: str, handler: Handler) -> Route:
        async def endpoint(request: Request) -> Response:
            return await self._answer(Call(name, request), handler)

        return Route(path, endpoint, methods=[method])

    async def _answer(self, call: Call, handler: Handler) -> Response:
        started = time.perf_counter()
        outcome = "ok"
        try:
            grant = await self._authenticate(call)
            permit = self._permits.of(grant.client_id)
            call.caller = Caller(grant.client_id, grant.scopes, permit)
            self._throttle.check(grant.client_id, time.monotonic())
            response = await handler(call)
        except ProblemError as error:
            outcome, response = error.code, problem_response(error)
            call.fields.setdefault("detail", error.detail)
        except (SQLAlchemyError, KeysUnavailableError) as error:
            log.warning("not answered", call=call.name, error=reason_of(error))
            problem = ProblemError("unavailable", "something this needs is away at the moment")
            outcome, response = problem.code, problem_response(problem)
        elapsed_s = time.perf_counter() - started
        metrics.REQUESTS.labels(call.name, outcome).inc()
        metrics.ANSWER_S.labels(call.name).observe(elapsed_s)
        if (sampler := self._samplers.get(outcome)) is not None:
            passed_over = sampler.pick(time.monotonic())
            if passed_over is None:
                return response
            call.fields["passed_over"] = passed_over
        self._request_log.write(self._line(call, outcome, response.status_code, elapsed_s))
        return response

    def _line(self, call: Call, outcome: str, status: int, elapsed_s: float) -> dict[str, object]:
        client = call.request.client
        return {
            "time": datetime.now(UTC),
            "call": call.name,
            "client_id": call.caller.client_id or None,
            "from": client.host if client else None,
            **call.fields,
            "outcome": outcome,
            "status": status,
            "ms": round(elapsed_s * 1000, 1),
        }

    async def _authenticate(self, call: Call) -> Grant:
        header = call.request.headers.get("authorization", "")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthenticated("a bearer token is needed", has_token=False)
        try:
            return await self._verifier.verify(token.strip())
        except InvalidTokenError as error:
            raise unauthenticated(str(error), has_token=True) from error

    async def _order(self, call: Call) -> Response:
        try:
            raw = await _body(call.request, self._max_body_bytes)
            order = read_order(call.caller, call.name, raw)
        except Refusal as refusal:
            order = NewRequest(call.caller.client_id, None, call.name, {}, refusal=refusal)
        accepted = await self._commit(call, order)
        return _json(
            OrderAccepted(
                accepted.request_id,
                order.transaction_id or "",
                "accepted",
                accepted.accepted_at,
                accepted.message_id,
            ),
            202,
        )

    async def _put_product(self, call: Call) -> Response:
        product_id = call.request.path_params["product_id"]
        try:
            raw = await _body(call.request, self._max_body_bytes)
            order = read_product(call.caller, product_id, raw)
        except Refusal as refusal:
            order = NewRequest(call.caller.client_id, None, call.name, {}, refusal=refusal)
        accepted = await self._commit(call, order)
        product = Product(int(product_id), str(order.body["name"]))
        return _json(product, 201 if accepted.created else 200)

    async def _commit(self, call: Call, order: NewRequest) -> Accepted:
        """Wait for the commit; raises ProblemError for what was refused."""
        [result] = await self._writer.submit([order])
        if order.kind in ORDERS:
            metrics.ORDERS.labels(order.kind, _outcome(result)).inc()
        call.fields |= _fields_of(order, result)
        if isinstance(result, Accepted):
            return result
        if result.code == "insufficient_scope":
            scope = ORDERS[order.kind][1] if order.kind in ORDERS else "product"
            raise insufficient_scope(scope, result.request_id)
        raise ProblemError(result.code, result.detail, request_id=result.request_id)

    async def _batch(self, call: Call) -> Response:
        try:
            raw = await _body(call.request, self._max_batch_bytes)
            lines = [(n, line) for n, line in enumerate(raw.split(b"\n"), 1) if line.strip()]
        except Refusal as refusal:
            await self._refuse_batch(call, refusal)
        if len(lines) > MAX_BATCH_LINES:
            too_many = Refusal("too_large", f"a batch has {MAX_BATCH_LINES} lines at most")
            await self._refuse_batch(call, too_many)
        # The request itself has been counted.
        self._throttle.check(call.caller.client_id, time.monotonic(), cost=len(lines) - 1)
        call.fields["orders"] = len(lines)
        results, unlogged = await self._write_lines(call, [line for _, line in lines])
        if results and all(_is_unavailable(result) for result in results):
            raise ProblemError("unavailable", "no order of the batch could be kept")
        await asyncio.to_thread(self._log_batch, call, unlogged)
        answers = [
            _batch_line(number, result) for (number, _), result in zip(lines, results, strict=True)
        ]
        return Response(
            msgspec.json.Encoder().encode_lines(answers), 200, media_type="application/x-ndjson"
        )

    async def _write_lines(
        self, call: Call, lines: Sequence[bytes]
    ) -> tuple[list[Result], list[_Answered]]:
        """Write a group after the other, while the next is read and the one before is logged.

        Returns all results, and the orders that are still to be logged. Behind a group that the
        database did not take none is tried: what is repeated stays in order.
        """

        async def read(start: int) -> list[NewRequest]:
            some = lines[start : start + GROUP]
            return await asyncio.to_thread(
                lambda: [read_batch_line(call.caller, line) for line in some]
            )

        results: list[Result] = []
        unlogged: list[_Answered] = []
        lost: Result | None = None
        ahead = await read(0)
        while ahead:
            group, following = ahead, len(results) + len(ahead)
            if lost is not None:
                written, ahead = [lost] * len(group), await read(following)
            else:
                written, ahead, _ = await asyncio.gather(
                    self._writer.submit(group),
                    read(following),
                    asyncio.to_thread(self._log_batch, call, unlogged),
                )
                unlogged = []
                lost = next(
                    (one for one in written if _is_unavailable(one) and one != UNWRITABLE), None
                )
            results += written
            unlogged += zip(group, written, strict=True)
        return results, unlogged

    async def _refuse_batch(self, call: Call, refusal: Refusal) -> NoReturn:
        request = NewRequest(call.caller.client_id, None, "batch", {}, refusal=refusal)
        await self._commit(call, request)
        raise refusal  # not reached: what carries a refusal is refused

    def _log_batch(self, call: Call, answered: Sequence[_Answered]) -> None:
        now, client_id = datetime.now(UTC), call.caller.client_id
        about = [
            (order.kind, _outcome(result), _fields_of(order, result)) for order, result in answered
        ]
        self._request_log.write(
            *(
                {"time": now, "call": kind, "client_id": client_id, "batch": True}
                | fields
                | {"outcome": outcome}
                for kind, outcome, fields in about
            )
        )
        for (kind, outcome), count in Counter(
            (kind, outcome) for kind, outcome, _ in about
        ).items():
            metrics.ORDERS.labels(kind, outcome).inc(count)

    async def _request_by_id(self, call: Call) -> Response:
        _require(call, "read")
        request_id = call.request.path_params["request_id"]
        if not is_request_id(request_id):
            return _request_response(None)
        record = await asyncio.to_thread(
            request_by_id, self._engine, call.caller.client_id, request_id
        )
        return _request_response(record)

    async def _request_by_transaction(self, call: Call) -> Response:
        _require(call, "read")
        transaction_id = call.request.query_params.get("transaction_id")
        if transaction_id is None or not is_transaction_id(transaction_id):
            raise ProblemError(
                "invalid_value", "transaction_id is not 1 to 64 printable characters"
            )
        record = await asyncio.to_thread(
            request_by_transaction, self._engine, call.caller.client_id, transaction_id
        )
        return _request_response(record)

    async def _device(self, call: Call) -> Response:
        _require(call, "read")
        device_id = device_number(call.request.path_params["device_id"])
        if device_id is None:
            raise ProblemError("invalid_value", "device_id is not a decimal number below 2^40")
        if not call.caller.permit.allows_device(device_id):
            raise ProblemError("not_permitted", f"this client may not read device {device_id}")
        record = await asyncio.to_thread(device_record, self._engine, device_id)
        if record is None:
            raise ProblemError("unknown_device", f"device {device_id} was never added")
        return _json(device_state(device_id, record, call.caller.permit))

    async def _products(self, call: Call) -> Response:
        _require(call, "read")
        rows = await asyncio.to_thread(catalogue, self._engine)
        seen = [row for row in rows if call.caller.permit.allows_product(row.product_id)]
        return _json(Catalogue([Product(row.product_id, row.name) for row in seen]))


def _require(call: Call, scope: str) -> None:
    if scope not in call.caller.scopes:
        raise insufficient_scope(scope)


async def _body(request: Request, limit: int) -> bytes:
    """Read a body of at most `limit` bytes; raises Refusal `too_large`."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise Refusal("too_large", f"the body has more than {limit} bytes")
    except ClientDisconnect as error:
        raise Refusal("malformed", "the client hung up within the body") from error
    return bytes(body)


def _fields_of(order: NewRequest, result: Result) -> dict[str, object]:
    return {
        "request_id": result.request_id,
        "transaction_id": order.transaction_id,
        "device_id": None if order.device_id is None else str(order.device_id),
        "product_id": order.product_id,
        "message_id": result.message_id if isinstance(result, Accepted) else order.message_id,
        "detail": None if isinstance(result, Accepted) else result.detail,
    }


def _outcome(result: Result) -> str:
    return "accepted" if isinstance(result, Accepted) else result.code


def _is_unavailable(result: Result) -> bool:
    return not isinstance(result, Accepted) and result.code == "unavailable"


def _batch_line(number: int, result: Result) -> BatchLine:
    if isinstance(result, Accepted):
        return BatchLine(
            number, "accepted", request_id=result.request_id, message_id=result.message_id
        )
    return BatchLine(number, "refused", result.code, result.detail, result.request_id)


def _request_response(record: RequestRecord | None) -> Response:
    if record is None:
        raise ProblemError("not_found", "no such request of this client")
    return _json(request_state(record))


def _json(value: Any, status: int = 200) -> Response:  # noqa: ANN401 (any struct)
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _http_problem(_request: Request, error: Exception) -> Response:
    """What routing finds wrong: no such path, or another method."""
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for this alone)
    code = "not_found" if error.status_code == 404 else "not_permitted"  # noqa: PLR2004 (Not Found)
    metrics.REQUESTS.labels("none", code).inc()
    return problem_response(
        ProblemError(code, error.detail, status=error.status_code, headers=error.headers)
    )


async def _unknown_problem(_request: Request, _error: Exception) -> Response:
    """A bug of ours: says nothing of the inside; the server logs it."""
    metrics.REQUESTS.labels("none", "error").inc()
    return problem_response(ProblemError("unavailable", "an error of the gateway", status=500))
