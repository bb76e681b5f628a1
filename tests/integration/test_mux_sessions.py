"""EMMGs at the door, over real sockets."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from dvbwire.simulcrypt import (
    BandwidthAllocated,
    ChannelError,
    ChannelOpened,
    DataType,
    EmmgConnection,
    ErrorStatus,
    Event,
    Message,
    MessageType,
    ParameterType,
    SectionTspktFlag,
    StreamClosed,
    StreamError,
    StreamOpened,
    encode_udp_provision,
)
from dvbwire.ts import NULL_PID, packetize_section
from portcullis.mux.server import MAX_SESSIONS, MAX_VIOLATIONS, EmmgDoor, EmmgSession, UdpProvisions
from portcullis.mux.streams import Stream, StreamTable

CLIENT = 0xFFF00001
FIRST_PID = 0x1F00


def _section(mark: int) -> bytes:
    return b"\x82\x70\x64" + mark.to_bytes(5) + bytes(95)


class _Mux:
    """A door with real sockets, and what came through it."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, bytes]] = []
        self.announced = 0
        self.table = StreamTable(FIRST_PID, max_streams=4, max_kbit_s=1000)
        self.door = EmmgDoor(self.table, self._provide, self._announce)
        self.port = 0

    def _provide(self, stream: Stream, packets: list[bytes]) -> bool:
        self.taken += [(stream.queue.pid, packet) for packet in packets]
        return True

    def _announce(self) -> None:
        self.announced += 1


@asynccontextmanager
async def _open_mux() -> AsyncIterator[_Mux]:
    mux = _Mux()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: EmmgSession(mux.door), "127.0.0.1", 0)
    mux.port = server.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(
        lambda: UdpProvisions(mux.door), ("127.0.0.1", mux.port)
    )
    try:
        yield mux
    finally:
        transport.close()
        server.close()
        for session in list(mux.door.sessions):
            session.close("test over")
        await server.wait_closed()


class _Emmg:
    """An EMMG on a TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.protocol: EmmgConnection
        self._events: list[Event] = []

    @classmethod
    async def connect(cls, mux: _Mux) -> "_Emmg":
        return cls(*await asyncio.open_connection("127.0.0.1", mux.port))

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def next_event(self) -> Event:
        """Send what is queued; return the next event."""
        self.writer.write(self.protocol.data_to_send())
        while not self._events:
            data = await self.reader.read(4096)
            assert data, "closed by the MUX"
            self._events += self.protocol.receive(data, self.now())
        return self._events.pop(0)

    async def ask(
        self,
        client_id: int = CLIENT,
        channel_id: int = 1,
        flag: SectionTspktFlag = SectionTspktFlag.SECTIONS,
    ) -> Event:
        """Ask for a channel; return the answer."""
        self.protocol = EmmgConnection(3, client_id, channel_id, flag)
        self.protocol.open_channel(self.now())
        return await self.next_event()

    async def open(
        self, *, data_id: int = 10, flag: SectionTspktFlag = SectionTspktFlag.SECTIONS
    ) -> None:
        """Open a channel and its stream 1."""
        assert await self.ask(flag=flag) == ChannelOpened(flag)
        self.protocol.open_stream(1, data_id, DataType.EMM, self.now())
        assert await self.next_event() == StreamOpened(1)

    async def open_patiently(self) -> None:
        """Open, however often it takes until the ids are free."""
        while isinstance(await self.ask(), ChannelError):
            pass
        self.protocol.open_stream(1, 10, DataType.EMM, self.now())
        assert await self.next_event() == StreamOpened(1)

    async def closed_by_mux(self) -> bytes:
        """Return all that comes until the MUX closes."""
        return await self.reader.read()

    async def leave(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def _round_trip(emmg: _Emmg) -> None:
    """Wait until the MUX has read all that was sent: it answers in order."""
    emmg.protocol.request_bandwidth(1, None, emmg.now())
    assert isinstance(await emmg.next_event(), BandwidthAllocated)


def _run(scenario: Callable[[_Mux], Awaitable[None]]) -> None:
    async def go() -> None:
        async with asyncio.timeout(30), _open_mux() as mux:
            await scenario(mux)

    asyncio.run(go())


def test_a_session_from_setup_to_close() -> None:
    """Channel, stream, bandwidth, sections, close; the PID stays announced."""

    async def scenario(mux: _Mux) -> None:
        emmg = await _Emmg.connect(mux)
        await emmg.open()
        assert mux.announced == 1
        emmg.protocol.request_bandwidth(1, 400, emmg.now())
        assert await emmg.next_event() == BandwidthAllocated(1, 400)
        emmg.protocol.request_bandwidth(1, 60_000, emmg.now())
        assert await emmg.next_event() == BandwidthAllocated(1, 1000)
        emmg.writer.write(emmg.protocol.provide(1, [_section(1), _section(2)]))
        emmg.protocol.close_stream(1, emmg.now())
        assert await emmg.next_event() == StreamClosed(1)
        emmg.protocol.close_channel()
        emmg.writer.write(emmg.protocol.data_to_send())
        assert await emmg.closed_by_mux() == b""
        await emmg.leave()
        packets = [packetize_section(_section(mark), NULL_PID)[0] for mark in (1, 2)]
        assert mux.taken == [(FIRST_PID, packet) for packet in packets]
        assert [each.ca_pid for each in mux.table.descriptors()] == [FIRST_PID]
        assert mux.table.channels == 0

    _run(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_messages_cut_anywhere_are_put_together(seed: int) -> None:
    """Packets, provided in pieces of any size."""
    pieces = random.Random(seed)

    async def scenario(mux: _Mux) -> None:
        emmg = await _Emmg.connect(mux)
        await emmg.open(flag=SectionTspktFlag.PACKETS)
        datagrams = [packetize_section(_section(mark), NULL_PID)[0] for mark in range(200)]
        stream = b"".join(
            emmg.protocol.provide(1, datagrams[at : at + 5]) for at in range(0, 200, 5)
        )
        while stream:
            size = pieces.choice((1, 2, 4, 190, 1500))
            emmg.writer.write(stream[:size])
            await emmg.writer.drain()
            stream = stream[size:]
        await _round_trip(emmg)
        assert [packet for _, packet in mux.taken] == datagrams
        assert mux.door.counts["violations"] == 0
        await emmg.leave()

    _run(scenario)


def test_provision_over_udp_finds_its_stream_by_client_and_data_id() -> None:
    """What belongs to no open stream, or is no message, is counted."""

    async def scenario(mux: _Mux) -> None:
        loop = asyncio.get_running_loop()
        emmg = await _Emmg.connect(mux)
        await emmg.open()
        udp, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=("127.0.0.1", mux.port)
        )
        good = emmg.protocol.provide_udp(1, [_section(1), _section(2)])
        counts = mux.door.counts
        udp.sendto(b"rubbish")
        udp.sendto(good[: len(good) // 2])
        udp.sendto(encode_udp_provision(3, CLIENT, 99, [_section(3)]))
        udp.sendto(encode_udp_provision(3, CLIENT, 10, [b"no section"]))
        udp.sendto(good)
        while not mux.taken:
            await _round_trip(emmg)
        udp.close()
        assert len(mux.taken) == 2
        assert (counts["udp_violations"], counts["udp_unknown"]) == (2, 1)
        assert counts["datagrams_malformed"] == 1
        await emmg.leave()

    _run(scenario)


def test_ids_in_use_are_refused_and_the_asker_may_wait_and_ask_again() -> None:
    """0x11 for a channel, 0x13 for a stream; granted as soon as the holder is gone."""

    async def scenario(mux: _Mux) -> None:
        holder, asker = await _Emmg.connect(mux), await _Emmg.connect(mux)
        await holder.open()
        refused = await asker.ask()
        assert refused == ChannelError((ErrorStatus.DATA_CHANNEL_ID_IN_USE,), ())
        assert await asker.ask(channel_id=2) == ChannelOpened(SectionTspktFlag.SECTIONS)
        asker.protocol.open_stream(1, 10, DataType.EMM, asker.now())
        assert await asker.next_event() == StreamError(1, (ErrorStatus.DATA_ID_IN_USE,), ())
        holder.protocol.close_stream(1, holder.now())
        assert await holder.next_event() == StreamClosed(1)
        asker.protocol.open_stream(1, 10, DataType.EMM, asker.now())
        assert await asker.next_event() == StreamOpened(1)
        assert mux.door.counts["channels_refused"] == 1
        assert mux.door.counts["streams_refused"] == 1
        await holder.leave()
        await asker.leave()

    _run(scenario)


def test_an_emmg_that_vanishes_gives_its_ids_back() -> None:
    """A cut connection is as good as channel_close; the PID is the same afterwards."""

    async def scenario(mux: _Mux) -> None:
        for _ in range(2):
            emmg = await _Emmg.connect(mux)
            await emmg.open_patiently()
            emmg.writer.transport.abort()
        assert mux.announced == 2
        assert [stream.queue.pid for stream in mux.table] == [FIRST_PID]

    _run(scenario)


def test_an_unsupported_version_is_answered_and_survived() -> None:
    """0x02; the same connection may then speak a version that is known."""

    async def scenario(mux: _Mux) -> None:
        emmg = await _Emmg.connect(mux)
        setup = Message.build(
            9,
            MessageType.CHANNEL_SETUP,
            (ParameterType.CLIENT_ID, CLIENT),
            (ParameterType.DATA_CHANNEL_ID, 1),
            (ParameterType.SECTION_TSPKT_FLAG, 0),
        )
        emmg.writer.write(setup.encode())
        answer = await emmg.reader.readexactly(5)
        body = await emmg.reader.readexactly(int.from_bytes(answer[3:]))
        error = Message.decode(answer + body)
        assert error.type == MessageType.CHANNEL_ERROR
        assert error.numbers(ParameterType.ERROR_STATUS) == (ErrorStatus.UNSUPPORTED_VERSION,)
        await emmg.open()
        assert mux.door.counts["violations"] == 1
        await emmg.leave()

    _run(scenario)


def test_unknown_messages_and_parameters_are_ignored() -> None:
    """TS 103 197 4.4.1; the session goes on."""

    async def scenario(mux: _Mux) -> None:
        emmg = await _Emmg.connect(mux)
        await emmg.open()
        emmg.writer.write(Message(3, 0x8001, ((0x9000, b"x"),)).encode())
        await _round_trip(emmg)
        assert mux.door.counts["unknown_ignored"] == 1
        assert mux.door.counts["violations"] == 0
        await emmg.leave()

    _run(scenario)


def test_a_datagram_that_is_no_section_puts_the_stream_in_error() -> None:
    """0x0D in a stream_error; after closing the stream the EMMG may go on."""

    async def scenario(mux: _Mux) -> None:
        emmg = await _Emmg.connect(mux)
        await emmg.open()
        good = emmg.protocol.provide(1, [_section(1)])
        emmg.writer.write(good[:-1] + b"\0")
        emmg.writer.write(good.replace(b"\x82\x70\x64", b"\x82\x70\x65"))
        event = await emmg.next_event()
        assert event == StreamError(1, (ErrorStatus.INVALID_VALUE,), ())
        emmg.protocol.close_stream(1, emmg.now())
        assert await emmg.next_event() == StreamClosed(1)
        emmg.protocol.open_stream(1, 10, DataType.EMM, emmg.now())
        assert await emmg.next_event() == StreamOpened(1)
        assert len(mux.taken) == 1
        await emmg.leave()

    _run(scenario)


def test_a_stream_spoiled_before_it_is_open_is_not_kept() -> None:
    """Who asks for bandwidth in the breath of stream_setup has no stream, and may try again."""

    async def scenario(mux: _Mux) -> None:
        emmg = await _Emmg.connect(mux)
        assert await emmg.ask() == ChannelOpened(SectionTspktFlag.SECTIONS)
        emmg.protocol.open_stream(1, 10, DataType.EMM, emmg.now())
        too_early = Message.build(
            3,
            MessageType.STREAM_BW_REQUEST,
            (ParameterType.CLIENT_ID, CLIENT),
            (ParameterType.DATA_CHANNEL_ID, 1),
            (ParameterType.DATA_STREAM_ID, 1),
        )
        emmg.writer.write(emmg.protocol.data_to_send() + too_early.encode())
        assert await emmg.next_event() == StreamError(1, (ErrorStatus.INVALID_MESSAGE,), ())
        emmg.protocol.open_stream(1, 11, DataType.EMM, emmg.now())
        assert await emmg.next_event() == StreamOpened(1)
        assert [stream.data_id for stream in mux.table if stream.is_open] == [11]
        await emmg.leave()

    _run(scenario)


@pytest.mark.parametrize("seed", range(5))
def test_rubbish_is_counted_and_its_connection_closed(seed: int) -> None:
    """Others go on; the door stays open."""
    noise = random.Random(seed)

    async def scenario(mux: _Mux) -> None:
        honest, vandal = await _Emmg.connect(mux), await _Emmg.connect(mux)
        await honest.open()
        for _ in range(MAX_VIOLATIONS):
            body = noise.randbytes(noise.randrange(200))
            vandal.writer.write(bytes((3, 0, 0x11)) + len(body).to_bytes(2) + body)
        await vandal.closed_by_mux()
        await vandal.leave()
        assert 1 <= mux.door.counts["violations"] <= MAX_VIOLATIONS
        honest.writer.write(honest.protocol.provide(1, [_section(1)]))
        await _round_trip(honest)
        assert len(mux.taken) == 1
        await honest.leave()

    _run(scenario)


def test_half_a_message_holds_nothing_up() -> None:
    """Cut off in the middle, the rest never comes; the ids are free again."""

    async def scenario(mux: _Mux) -> None:
        emmg = await _Emmg.connect(mux)
        await emmg.open()
        emmg.writer.write(emmg.protocol.provide(1, [_section(1)])[:-20])
        await emmg.leave()
        again = await _Emmg.connect(mux)
        await again.open_patiently()
        assert mux.taken == []
        await again.leave()

    _run(scenario)


def test_more_connections_than_the_door_holds_are_closed_at_once() -> None:
    """And counted."""

    async def scenario(mux: _Mux) -> None:
        emmgs = [await _Emmg.connect(mux) for _ in range(MAX_SESSIONS + 1)]
        assert await emmgs[-1].closed_by_mux() == b""
        assert mux.door.counts["connections_refused"] == 1
        for emmg in emmgs:
            await emmg.leave()

    _run(scenario)
