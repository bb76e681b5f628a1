"""The gateway's socket: what comes before there is a request, or instead of one."""

import asyncio
import json
from pathlib import Path

import httptools
import pytest
from gateway_sms import gateway, token

from portcullis.gateway import http
from portcullis.gateway.http import MAX_HEAD_BYTES, GatewayProtocol
from portcullis.gateway.token_endpoint import TokenEndpoint
from portcullis.store.database import engine_for
from portcullis.store.migrate import migrate

ORDER = b'{"transaction_id": "t1", "device_id": "1"}'
HEAD = (
    b"POST /adddevice HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\nAuthorization: Bearer %s\r\n\r\n"
)


class Answers:
    """Status and body of each answer on a connection."""

    def __init__(self) -> None:
        self.all: list[tuple[int, bytes]] = []
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)

    def read(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take all that came."""
        self._parser.feed_data(data)
        return self.all

    def on_body(self, body: bytes) -> None:
        """More of a body (httptools calls)."""
        self._body += body

    def on_message_complete(self) -> None:
        """An answer is whole (httptools calls)."""
        self.all.append((self._parser.get_status_code(), self._body))
        self._body = b""


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send pieces over one connection, and read it to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    async with asyncio.timeout(20):
        heard = await reader.read()
    writer.close()
    return heard


def codes(heard: bytes) -> list[tuple[int, str]]:
    """Status and code of each answer."""
    return [(status, json.loads(body).get("code", "")) for status, body in Answers().read(heard)]


@pytest.fixture
def url(tmp_path: Path) -> tuple[str, Path]:
    """A database and a place for the request log."""
    url = f"sqlite:///{tmp_path}/p.db"
    migrate(engine_for(url))
    return url, tmp_path / "requests.jsonl"


def ask(url: tuple[str, Path], *pieces: bytes) -> bytes:
    """One connection to a gateway of its own."""

    async def scenario() -> bytes:
        async with gateway(*url) as sms, sms.served(GatewayProtocol) as base:
            return await exchange(int(base.rpartition(":")[2]), *pieces)

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / \r\n\r\n",
        b"POST /adddevice HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /adddevice HTTP/1.1\r\nHost: g\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_with_a_code(url: tuple[str, Path], rubbish: bytes) -> None:
    """As a problem, like everything else that is refused; then the connection ends."""
    assert codes(ask(url, rubbish)) == [(400, "malformed")]


@pytest.mark.parametrize(
    "pieces",
    [
        (b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n",),
        (b"GET / HTTP/1.1\r\n", *[b"X: " + b"y" * 1000 + b"\r\n"] * 70),
        (b"GET / HTTP/1.1\r\nX: ", *[b"y" * 10_000] * 10),  # one field that does not end
    ],
)
def test_a_head_has_a_bound(url: tuple[str, Path], pieces: tuple[bytes, ...]) -> None:
    """However it comes in: no more than 64 KiB are kept of it."""
    assert codes(ask(url, *pieces)) == [(431, "too_large")]


def test_trailers_have_the_same_bound(url: tuple[str, Path]) -> None:
    """A body in chunks may end in fields; these count with the head."""
    head = HEAD.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked")
    pieces = [head % token().encode(), b"%x\r\n%s\r\n0\r\n" % (len(ORDER), ORDER)]
    pieces += [b"X: " + b"y" * 1000 + b"\r\n"] * 70
    assert codes(ask(url, *pieces)) == [(431, "too_large")]


def test_no_order_is_told_of_the_fault_of_what_follows_it(url: tuple[str, Path]) -> None:
    """The connection ends without an answer, so the SMS repeats: the order may be committed."""
    good = HEAD % (len(ORDER), token().encode()) + ORDER
    heard = ask(url, good + b"\x00rubbish")
    assert codes(heard) in ([], [(409, "no_device_key")])


def test_a_request_that_does_not_end_is_dropped(
    url: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the head or in the body: nobody keeps a connection for a request that never comes."""
    monkeypatch.setattr(http, "REQUEST_TIMEOUT_S", 0.2)
    whole = HEAD % (len(ORDER), token().encode()) + ORDER
    for part in (b"", whole[:20], whole[:-5]):
        assert ask(url, part) == b""


def test_an_idle_connection_is_the_client_s_to_end(url: tuple[str, Path]) -> None:
    """Python's httpx keeps one for 5 s: a request then must not meet a server that hangs up."""
    request = b"GET /nowhere HTTP/1.1\r\nHost: g\r\n\r\n"

    async def scenario() -> list[tuple[int, bytes]]:
        async with gateway(*url) as sms, sms.served(GatewayProtocol) as base:
            port = int(base.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            answers = Answers()
            for idle_s in (0.0, 5.5):
                await asyncio.sleep(idle_s)
                writer.write(request)
                answers.read(await reader.read(65_536))
            writer.close()
            return answers.all

    assert [status for status, _ in asyncio.run(scenario())] == [404, 404]


def test_a_request_id_that_the_database_cannot_compare_is_not_found(
    database_url: str, tmp_path: Path
) -> None:
    """The column is ASCII: other characters would be an error of its statement."""

    async def scenario() -> None:
        async with gateway(database_url, tmp_path / "requests.jsonl") as sms:
            for odd in ("📺", "ü", "0" * 31, "G" * 32):
                answer = await sms.http.get(f"/requests/{odd}")
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    asyncio.run(scenario())


@pytest.mark.parametrize("credentials", [b"\xff\xff", b"affc4ba68ee0", b"!", b"/w==", b"YTpi\xff"])
def test_broken_basic_credentials_are_an_invalid_client(
    url: tuple[str, Path], tmp_path: Path, credentials: bytes
) -> None:
    """Neither base64 nor UTF-8 can be relied upon (RFC 6749 5.2)."""
    endpoint = TokenEndpoint(tmp_path / "oauth", "https://as", "portcullis", 60)

    async def scenario() -> None:
        async with gateway(*url, routes=endpoint.routes()) as sms:
            answer = await sms.http.post(
                "/oauth/token",
                data={"grant_type": "client_credentials"},
                headers={b"Authorization": b"Basic " + credentials},
            )
            assert (answer.status_code, answer.json()) == (401, {"error": "invalid_client"})
            assert answer.headers["WWW-Authenticate"].startswith("Basic")

    asyncio.run(scenario())
