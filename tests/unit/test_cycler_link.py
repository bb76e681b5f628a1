"""The cycler's end of a connection, when the multiplexer says much at once."""

import asyncio

import pytest

from dvbwire.simulcrypt import ErrorStatus, MessageType, MuxConnection
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
