"""A multiplexer that notes what reaches it and when, and a cycler process to talk to it."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from socket import socket
from typing import cast

from sqlalchemy import Connection, select, update

from dvbwire.simulcrypt import (
    BandwidthRequested,
    ChannelSetup,
    ChannelState,
    DataProvided,
    MuxConnection,
    StreamCloseRequested,
    StreamSetup,
    decode_udp_provision,
)
from portcullis.store.database import database_now
from portcullis.store.schema import airings, emms, feed
from tests.unit.cycler_emms import section_of

PROGRAM = """
import sys
from pathlib import Path
from portcullis.cycler.main import main
from portcullis.runtime.config import ConfigSource
from portcullis.runtime.service import run
run(lambda: main(ConfigSource.load(Path(sys.argv[1]))))
"""


class MuxPeer:
    """What the multiplexer has heard, and how it answers."""

    def __init__(self) -> None:
        self.port = 0
        self.kbit_s: int | None = 1000
        self.section_flag: int | None = None  # None: as asked
        self.refuse_streams_with: int | None = None
        self.datagrams: list[tuple[float, bytes]] = []
        self.most_packets = 0
        self.polite_closes = 0
        self.accepted = 0
        self.requested: list[int | None] = []
        self.sessions: list[_Session] = []
        self.changed = asyncio.Condition()

    async def start(self) -> None:
        """Listen on TCP and UDP."""
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: _Session(self), "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.udp, _ = await loop.create_datagram_endpoint(
            lambda: _Udp(self), local_addr=("127.0.0.1", self.port)
        )

    def stop(self) -> None:
        """Close everything."""
        self.server.close()
        self.udp.close()
        self.drop()

    def drop(self) -> None:
        """Lose every connection without a word."""
        for session in self.sessions:
            session.transport.abort()
        self.sessions.clear()

    def talk_rubbish(self) -> None:
        """Send a channel_status that ends in the middle of a parameter."""
        for session in self.sessions:
            session.transport.write(bytes.fromhex("03 0013 0003 000100"))

    def allocate(self, kbit_s: int) -> None:
        """Change the allocation, unasked."""
        self.kbit_s = kbit_s
        for session in self.sessions:
            session.connection.allocate(1, kbit_s)
            session.flush()

    def hear(self, datagrams: tuple[bytes, ...]) -> None:
        """Note datagrams."""
        now = time.monotonic()
        self.datagrams.extend((now, datagram) for datagram in datagrams)
        self.most_packets = max(self.most_packets, sum(map(len, datagrams)) // 188)
        self.notify()

    def notify(self) -> None:
        """Wake whoever waits."""
        self._notifying = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until something heard makes it true."""
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(condition)

    @property
    def packets(self) -> list[tuple[float, bytes]]:
        """Packets with their times."""
        return [
            (moment, data[start : start + 188])
            for moment, data in list(self.datagrams)
            for start in range(0, len(data), 188)
        ]

    def heard(self, device_id: int) -> int:
        """How many times an EMM of this box was provided, in either format."""
        address = device_id.to_bytes(5)
        return sum(
            data[3:8] == address
            or any(data[start + 8 : start + 13] == address for start in range(0, len(data), 188))
            for _, data in self.datagrams
        )


class _Session(asyncio.Protocol):
    def __init__(self, peer: MuxPeer) -> None:
        self.peer = peer
        self.connection = MuxConnection()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.peer.sessions.append(self)
        self.peer.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self in self.peer.sessions:
            self.peer.sessions.remove(self)
        self.peer.notify()

    def data_received(self, data: bytes) -> None:
        peer, connection = self.peer, self.connection
        for event in connection.receive(data, time.monotonic()):
            match event:
                case ChannelSetup():
                    asked = event.section_tspkt_flag
                    connection.accept_channel(
                        asked if peer.section_flag is None else peer.section_flag
                    )
                case StreamSetup():
                    if peer.refuse_streams_with is None:
                        connection.accept_stream(event.stream_id)
                    else:
                        connection.refuse_stream(event.stream_id, peer.refuse_streams_with)
                case BandwidthRequested():
                    peer.requested.append(event.kbit_s)
                    connection.allocate(event.stream_id, peer.kbit_s)
                case DataProvided():
                    peer.hear(event.datagrams)
                case StreamCloseRequested():
                    connection.confirm_stream_close(event.stream_id)
                    peer.polite_closes += 1
                case _:
                    pass
        self.flush()
        peer.notify()
        if connection.channel_state is ChannelState.CLOSED:
            self.transport.close()

    def flush(self) -> None:
        """Send what is queued."""
        self.transport.write(self.connection.data_to_send())


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, peer: MuxPeer) -> None:
        self.peer = peer

    def datagram_received(self, data: bytes, addr: object) -> None:
        del addr
        self.peer.hear(decode_udp_provision(data).datagrams)


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _configure(folder: Path, database_url: str, mux_port: int, stream: str, monitor: int) -> Path:
    folder.mkdir(exist_ok=True)
    config = folder / "portcullis.toml"
    config.write_text(f"""
[database]
url = "{database_url}"
[cycler]
monitor = "127.0.0.1:{monitor}"
asrun_dir = "{folder}/asrun"
[[cycler.stream]]
mux = "127.0.0.1:{mux_port}"
{stream}
""")
    return config


@asynccontextmanager
async def running_cycler(
    folder: Path, database_url: str, mux_port: int, stream: str = "", monitor: int | None = None
) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """A cycler process, ended politely; `stream`: lines added to its one stream."""
    config = _configure(folder, database_url, mux_port, stream, monitor or free_port())
    process = subprocess.Popen(  # noqa: ASYNC220 (starting one is quick)
        [sys.executable, "-c", PROGRAM, str(config)]
    )
    try:
        yield process
        process.terminate()
        assert await asyncio.to_thread(process.wait, 15) == 0
    finally:
        process.kill()
        process.wait()


def seal(connection: Connection, device_id: int, *, number: int = 1, aired: bool = False) -> int:
    """Do what the EMMG does in its last transaction; returns the revision."""
    revision: int = connection.execute(select(feed.c.revision).with_for_update()).scalar_one() + 1
    now = database_now(connection)
    key = {"device_id": device_id, "message_id": 0}
    connection.execute(
        emms.insert().values(
            **key,
            part=1,
            parts=1,
            kind=1,
            epoch=0,
            number=number,
            cause="order",
            covers=number,
            revision=revision,
            section=section_of(device_id, number, 76),
            sealed_at=now,
            first_aired_at=datetime(2026, 1, 1, tzinfo=UTC) if aired else None,
        )
    )
    if not aired:
        connection.execute(airings.insert().values(**key, wanted=number, sealed_at=now))
    connection.execute(update(feed).values(revision=revision))
    return revision
