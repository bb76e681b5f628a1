"""The cycler's end of a connection, when the multiplexer says much at once."""

import asyncio
import errno
import socket

import pytest

from dvbwire.simulcrypt import (
    ErrorStatus,
    MessageType,
    MuxConnection,
    decode_udp_provision,
)
from dvbwire.ts import NULL_PACKET
from portcullis.cycler.config import StreamConfig
from portcullis.cycler.link import Link, LinkState, _Session


class Wire(asyncio.Transport):
    """What the cycler writes, for a multiplexer to hear."""

    def __init__(self) -> None:
        super().__init__({"socket": self})
        self.written = b""
        self.aborted = False

    def setsockopt(self, *_option: int) -> None:
        """As the socket has it."""

    def is_closing(self) -> bool:
        """Whether this end has hung up."""
        return self.aborted

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written += data

    def abort(self) -> None:
        """Hang up at once."""
        self.aborted = True

    def take(self) -> bytes:
        """What was written since the last call."""
        taken, self.written = self.written, b""
        return taken


@pytest.mark.parametrize("end", ["stream", "channel"])
def test_an_error_may_come_with_the_status_it_takes_back(end: str) -> None:
    """Both in one piece: nothing is asked of a stream that is no longer open."""

    async def scenario() -> None:
        link = Link(StreamConfig(), lambda: None)
        session, wire, mux = _Session(link, None), Wire(), MuxConnection()
        link.want(wanted=True)
        session.connection_made(wire)
        mux.receive(wire.take(), 0.0)
        mux.accept_channel(1)
        session.data_received(mux.data_to_send())
        mux.receive(wire.take(), 0.0)
        mux.accept_stream(1)
        if end == "stream":
            mux.refuse_stream(1, ErrorStatus.UNRECOVERABLE_ERROR)
        else:
            mux.refuse_channel(ErrorStatus.UNRECOVERABLE_ERROR)
        session.data_received(mux.data_to_send())
        assert wire.aborted
        assert MessageType.STREAM_BW_REQUEST.to_bytes(2) not in wire.take()
        assert not session.ready
        assert link.state is not LinkState.STREAM_OPEN
        session.connection_lost(None)

    asyncio.run(scenario())


class WithoutCuts(socket.socket):
    """A UDP socket on an interface where the kernel cuts nothing apart."""

    asked = 0

    def sendmsg(self, *_: object) -> int:  # type: ignore[override]
        """Refuse as the kernel does."""
        self.asked += 1
        raise OSError(errno.EIO, "no checksum in hardware")


@pytest.mark.parametrize("kind", [socket.socket, WithoutCuts])
def test_each_message_is_a_datagram_of_its_own(kind: type[socket.socket]) -> None:
    """Whether the kernel cuts them apart, or they are sent one by one where it cannot."""

    async def scenario() -> None:
        link = Link(StreamConfig(provision="udp"), lambda: None)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mux_udp,
            kind(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            mux_udp.bind(("127.0.0.1", 0))
            mux_udp.settimeout(5)
            udp.connect(mux_udp.getsockname())
            session, wire, mux = _Session(link, udp), Wire(), MuxConnection()
            link.want(wanted=True)
            session.connection_made(wire)
            mux.receive(wire.take(), 0.0)
            mux.accept_channel(1)
            session.data_received(mux.data_to_send())
            mux.receive(wire.take(), 0.0)
            mux.accept_stream(1)
            session.data_received(mux.data_to_send())
            for _ in range(2):
                session.send_provisions(session.provisions(NULL_PACKET * 360, 7))
                heard = [decode_udp_provision(mux_udp.recv(2048)).datagrams for _ in range(52)]
                assert heard == [(NULL_PACKET * 7,)] * 51 + [(NULL_PACKET * 3,)]
            assert not link.counts["udp_error"]
            assert getattr(udp, "asked", 1) == 1

    asyncio.run(scenario())
