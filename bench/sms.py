"""Gateways under measurement, and the SMS that talks to them."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from joserfc.jwk import ECKey

from bench.gateway_variant import POOL
from bench.mariadb import Server, free_port
from bench.processes import PORTCULLIS, folder, service
from portcullis.runtime.oauth import SCOPES, issue_token

_ISSUER = "https://as.example"
_KEY = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)


def token() -> str:
    """A token of the authorization server that these gateways believe, good for an hour."""
    return issue_token(
        _KEY,
        issuer=_ISSUER,
        audience="portcullis",
        client_id="sms",
        scopes=SCOPES,
        lifetime_s=3600,
    )


@dataclass(frozen=True)
class Gateway:
    """One that runs."""

    pid: int
    url: str


@dataclass(frozen=True)
class Load:
    """What came of the orders of one run of wrk; times in milliseconds."""

    accepted: int
    seconds: float
    ms_p50: float
    ms_p99: float
    other: int


def variant(name: str) -> Sequence[str]:
    """The program of a baseline."""
    return [sys.executable, "-m", "bench.gateway_variant", name]


@contextmanager
def gateway(server: Server, program: Sequence[str] = PORTCULLIS) -> Iterator[Gateway]:
    """A gateway on the database, without a bound on a client's rate."""
    with folder() as home:
        monitor, listen = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        keys = home / "jwks.json"
        keys.write_text(json.dumps({"keys": [_KEY.as_dict(private=False)]}), encoding="utf-8")
        config = home / "portcullis.toml"
        config.write_text(
            f'[database]\nurl = "{server.url}"\npool_size = {POOL + 1}\n'
            f'[gateway]\nlisten = "{listen}"\nmonitor = "{monitor}"\nissuer = "{_ISSUER}"\n'
            f'jwks = "{keys}"\nrequest_log = "{home}/requests.jsonl"\nrate_per_client_s = 1e6\n',
            encoding="utf-8",
        )
        with service("gateway", config, monitor, program=program) as process:
            yield Gateway(process.pid, f"http://{listen}")


def wrk(url: str, boxes: int, clients: int, seconds: int) -> Load:
    """Orders from so many clients, each waiting for its answer before the next."""
    script = str(Path(__file__).with_name("orders.lua"))
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-s", script, url, "--"]
    run = subprocess.run(
        [*command, token(), uuid4().hex[:12], str(boxes)],
        check=True,
        capture_output=True,
        text=True,
    )
    said = dict(line.split() for line in run.stdout.splitlines() if line.count(" ") == 1)
    return Load(
        int(said["accepted"]),
        float(said["seconds"]),
        float(said["ms_p50"]),
        float(said["ms_p99"]),
        int(said["other"]),
    )


class Sms:
    """Orders over connections that it keeps; so light that it leaves the cores to the services."""

    def __init__(self, connections: "asyncio.Queue[_Connection]") -> None:
        self._free = connections
        self._authorization = f"Bearer {token()}"

    async def order(self, path: str, order: Mapping[str, object]) -> Mapping[str, object]:
        """Send one as soon as a connection is free; its answer, which is to be a 2xx."""
        body = json.dumps(order).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: {self._authorization}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        reader, writer = connection = await self._free.get()
        writer.write(head.encode() + body)
        status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
        (length,) = (field[15:] for field in fields if field.startswith("content-length:"))
        answer = await reader.readexactly(int(length))
        self._free.put_nowait(connection)
        assert status.split()[1].startswith("2"), answer
        return dict(json.loads(answer))


_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def open_sms(url: str, connections: int) -> AsyncIterator[Sms]:
    """An SMS with so many connections to a gateway."""
    host, _, port = url.removeprefix("http://").partition(":")
    opened: list[_Connection] = [
        await asyncio.open_connection(host, int(port)) for _ in range(connections)
    ]
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    for one in opened:
        free.put_nowait(one)
    try:
        yield Sms(free)
    finally:
        for _, writer in opened:
            writer.close()
