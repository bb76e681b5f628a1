"""HTTP before it is a request: what cannot be read, is too long or never ends (RFC 9112).

uvicorn reads HTTP/1.1; here its refusals get a code, and its patience and memory an end.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from portcullis.gateway import metrics
from portcullis.gateway.problems import ProblemError, problem_response

MAX_HEAD_BYTES = 65_536
"""Request line and headers, trailers included; also what may come without being any of it."""
REQUEST_TIMEOUT_S = 60.0
"""From a connection, or a request's first byte, to its last."""


class _TooLongError(Exception):
    """A head beyond its bound."""


class GatewayProtocol(HttpToolsProtocol):
    """One connection."""

    _head_bytes = 0
    _bytes_unread = 0  # taken by the parser, and nothing has come of them yet
    _is_too_long = False
    _too_late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Expect a request, but not for ever."""
        super().connection_made(transport)
        self._expect_its_end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; refuse what grows without becoming a request."""
        self._bytes_unread += len(data)
        super().data_received(data)
        if self._bytes_unread > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._is_too_long = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._head_bytes = 0
        self._expect_its_end()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """More of the request line."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field, or one trailer field."""
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._bytes_unread = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """More of the body."""
        self._bytes_unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._bytes_unread = 0
        self._expect_nothing()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, with a code, and hang up.

        With an answer still owed to a request before it, only hang up: no order may be told of
        the fault of what came after it. Who gets no answer repeats, and nothing is done twice.
        """
        del msg
        code = "too_large" if self._is_too_long else "malformed"
        metrics.REQUESTS.labels("none", code).inc()
        cycle: RequestResponseCycle | None = self.cycle  # None before the first
        if self.pipeline or (
            cycle is not None and not cycle.more_body and not cycle.response_complete
        ):
            self.transport.close()
            return
        if self._is_too_long:
            problem = ProblemError(code, f"a head beyond {MAX_HEAD_BYTES} bytes", status=431)
        else:
            problem = ProblemError(code, "not an HTTP/1.1 request")
        response = problem_response(problem)
        fields = [*response.raw_headers, (b"connection", b"close")]
        reason = b"Request Header Fields Too Large" if self._is_too_long else b"Bad Request"
        self.transport.write(
            b"HTTP/1.1 %d %s\r\n" % (response.status_code, reason)
            + b"".join(b"%s: %s\r\n" % field for field in fields)
            + b"\r\n"
            + bytes(response.body)
        )
        self.transport.close()

    def _count_head(self, more: int) -> None:
        self._head_bytes += more
        if self._head_bytes > MAX_HEAD_BYTES:
            self._is_too_long = True
            raise _TooLongError

    def _expect_its_end(self) -> None:
        self._expect_nothing()
        self._too_late = self.loop.call_later(REQUEST_TIMEOUT_S, self.transport.close)

    def _expect_nothing(self) -> None:
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None
