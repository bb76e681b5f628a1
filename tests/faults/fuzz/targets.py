"""What is fuzzed: each takes bytes, and raises only when something is not as documented."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from click.testing import CliRunner

from dvbwire.errors import DvbWireError
from dvbwire.psi import Cat, Pat, Pmt, PsiError, Tdt
from dvbwire.simulcrypt import (
    BandwidthRequested,
    ChannelSetup,
    DataType,
    EmmgConnection,
    Message,
    MessageReader,
    MuxConnection,
    RemoteProtocolError,
    StreamCloseRequested,
    StreamSetup,
    datagram_fits,
    decode_udp_provision,
)
from dvbwire.ts import MAX_SECTION_SIZE, PACKET_SIZE, PacketSync, SectionReassembler
from portcullis.cli.main import cli
from portcullis.cycler.config import StreamConfig
from portcullis.cycler.link import Link, LinkState, _Session
from portcullis.emm import (
    EmmError,
    EmmHeader,
    Kind,
    State,
    Withdrawal,
    dissect_payload,
    dissect_section,
    open_set,
)
from portcullis.emm import Message as ScreenMessage
from portcullis.mux.server import EmmgDoor, EmmgSession
from portcullis.mux.streams import StreamTable
from portcullis.runtime.errors import PortcullisError
from stbsim.box import Box
from stbsim.output import report
from stbsim.receiver import Receiver
from tests.faults.fuzz.seeds import (
    CA_SYSTEM_ID,
    CLIENT_ID,
    DEVICE_ID,
    DEVICE_KEY,
    EMM_PID,
    NOW,
    seal,
)

MAX_STREAMS = 4


def pieces(data: bytes) -> Iterator[bytes]:
    """The bytes as TCP might deliver them: the length itself says where they are cut."""
    size = 1 + len(data) % 97
    for start in range(0, len(data), size):
        yield data[start : start + size]


def emmg_connection(data: bytes) -> None:
    """The EMMG end, with channel and stream on their way."""
    emmg = EmmgConnection(3, CLIENT_ID, 1, 0)
    emmg.open_channel(0.0)
    now = 0.0
    opened = False
    for piece in pieces(data):
        now += 1.0
        emmg.receive(piece, now)
        if emmg.channel_state.value == "channel_open" and not opened:
            opened = True
            emmg.open_stream(1, 1, DataType.EMM, now)
        emmg.handle_timeout(now)
    _is_grammatical(emmg.data_to_send())


def mux_connection(data: bytes) -> None:
    """The MUX end, granting whatever is asked for."""
    mux = MuxConnection(opened_at=0.0)
    now = 0.0
    said = b""
    for piece in pieces(data):
        now += 1.0
        for event in mux.receive(piece, now):
            match event:
                case ChannelSetup():
                    mux.accept_channel(event.section_tspkt_flag)
                case StreamSetup():
                    mux.accept_stream(event.stream_id)
                case BandwidthRequested():
                    mux.allocate(event.stream_id, event.kbit_s)
                case StreamCloseRequested():
                    mux.confirm_stream_close(event.stream_id)
        said += mux.data_to_send()
        mux.handle_timeout(now)
    _is_grammatical(said + mux.data_to_send())


def _is_grammatical(said: bytes) -> None:
    for raw in MessageReader().feed(said):
        Message.decode(raw)


class FakeTransport(asyncio.Transport):
    """A TCP connection without a network; keeps nothing of what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.is_over = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 (asyncio's)
        """Peer and socket, as the real one has them."""
        return self if name == "socket" else super().get_extra_info(name, default)

    def setsockopt(self, *_option: int) -> None:
        """As the real socket has it."""

    def is_closing(self) -> bool:
        """Whether this end has hung up."""
        return self.is_over

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """What is said must be messages of the interface."""
        _is_grammatical(bytes(data))

    def close(self) -> None:
        """Hang up."""
        self.is_over = True

    abort = close


def mux_session(data: bytes) -> None:
    """The multiplexer's server behind its socket; whatever happens, nothing is left open."""
    table = StreamTable(0x1F00, MAX_STREAMS, 1000)
    door = EmmgDoor(table, lambda _stream, packets: bool(packets), lambda: None)
    session, transport = EmmgSession(door), FakeTransport()
    session.connection_made(transport)
    for piece in pieces(data):
        session.data_received(piece)
    assert len(list(table)) <= MAX_STREAMS
    session.connection_lost(None)
    assert not door.sessions
    assert not table.channels
    assert not any(stream.is_open for stream in table)


def cycler_session(data: bytes) -> None:
    """The cycler behind its socket, talking to a multiplexer gone mad."""
    link = Link(StreamConfig(), lambda: None)
    session, transport = _Session(link, None), FakeTransport()
    link._session = session
    link.want(wanted=True)
    session.connection_made(transport)
    for piece in pieces(data):
        if transport.is_over:
            break
        session.data_received(piece)
        if link.ready and session.connection.section_tspkt_flag == 0:
            link.send([[seal(Kind.STATE, NOW, State(True, NOW).to_payload())[0]]])
    session.connection_lost(None)
    assert not link.ready
    assert link.state in LinkState


def message(data: bytes) -> None:
    """One message: refused with an error_status, or the same again when written."""
    with suppress(RemoteProtocolError):
        read = Message.parse(data)
        assert read.encode() == data
        read.validate()


def udp_provision(data: bytes) -> None:
    """A UDP datagram at the multiplexer's door."""
    with suppress(RemoteProtocolError):
        for datagram in decode_udp_provision(data).datagrams:
            datagram_fits(0, datagram)


def psi(data: bytes) -> None:
    """A section to every table's reader; what one has read, it can write."""
    for kind in (Pat, Cat, Pmt, Tdt):
        with suppress(PsiError):
            table = kind.from_section(data)
            again = table.to_section()
            assert kind.from_section(again) == table


def stream(data: bytes) -> None:
    """A transport stream to packets, sections, and boxes behind a demultiplexer."""
    sync, reassembler = PacketSync(), SectionReassembler()
    receiver = Receiver([Box(DEVICE_ID, DEVICE_KEY)])
    for piece in pieces(data):
        for packet in sync.feed(piece):
            assert len(packet) == PACKET_SIZE
            for section in reassembler.push(packet):
                assert 3 <= len(section) <= MAX_SECTION_SIZE
            receiver.push(packet)
    report(receiver, receiver.as_of)


def box_sections(data: bytes) -> None:
    """EMM sections to a box: none but genuine ones may move it."""
    box = Box(DEVICE_ID, DEVICE_KEY)
    for start in range(0, len(data), 183):
        box.section(data[start : start + 183], CA_SYSTEM_ID)
    box.section(data, CA_SYSTEM_ID)


def box_payloads(data: bytes) -> None:
    """What only the head-end can send: any payload, sealed under the box's own key."""
    box = Box(DEVICE_ID, DEVICE_KEY)
    kind = Kind(1 + data[0] % 3) if data else Kind.STATE
    number = int.from_bytes(data[1:5])
    with suppress(EmmError):
        sections = seal(kind, number, data[5:])
        for section in sections[::-1]:
            box.section(section, CA_SYSTEM_ID)
        for section in sections:
            box.section(section, CA_SYSTEM_ID)
    box.tick(NOW)
    box.tick(NOW + 1_000_000)
    box.product_key(101, 3)


def emm_decode(data: bytes) -> None:
    """The head-end's own readers of EMMs."""
    with suppress(EmmError):
        EmmHeader.from_section(data)
    with suppress(EmmError):
        open_set(DEVICE_KEY, [data])
    dissect_section(data)
    for each in Kind:
        dissect_payload(each, data)
    for kind in (State, ScreenMessage, Withdrawal):
        with suppress(EmmError):
            payload = kind.from_payload(data).to_payload()
            assert kind.from_payload(payload).to_payload() == payload


def decode_command(data: bytes) -> None:
    """`portcullis emm decode`: shows, or says what is wrong; never a trace."""
    runner = CliRunner()
    for more in ([], ["--pid", str(EMM_PID), "--json"]):
        result = runner.invoke(cli, ["emm", "decode", "-", *more], input=data)
        if result.exception is not None and not isinstance(
            result.exception, (PortcullisError, DvbWireError)
        ):
            raise result.exception


EVERY = "every"
TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        emmg_connection,
        mux_connection,
        cycler_session,
        mux_session,
        message,
        udp_provision,
        psi,
        stream,
        box_sections,
        box_payloads,
        emm_decode,
        decode_command,
    )
}
