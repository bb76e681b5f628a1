"""What mutations start from: sessions, sections and streams as the real ends make them."""

from collections.abc import Callable
from datetime import UTC, datetime

from dvbwire.psi import CaDescriptor, Cat, Descriptor, ElementaryStream, Pat, Pmt, Tdt
from dvbwire.simulcrypt import (
    BandwidthRequested,
    ChannelSetup,
    DataType,
    EmmgConnection,
    ErrorStatus,
    MuxConnection,
    StreamCloseRequested,
    StreamSetup,
    encode_udp_provision,
)
from dvbwire.ts import NULL_PACKET, packetize_section
from portcullis.emm import (
    OPEN_END,
    EntitlementRecord,
    Kind,
    Message,
    State,
    Withdrawal,
    derive_kek,
    seal_set,
    segment_text,
)

CLIENT_ID = 0xFFF00001
CA_SYSTEM_ID = 0xFFF0
DEVICE_ID = 1001
DEVICE_KEY = bytes(range(32))
EMM_PID = 0x1F00
NOW = 1_800_000_000
_EPOCH = 1


def payloads() -> list[tuple[Kind, int, bytes]]:
    """Kind, number and payload of each EMM that a box may get."""
    records = tuple(
        EntitlementRecord(product, 3, OPEN_END if product % 2 else NOW + product, bytes(16))
        for product in range(101, 106)
    )
    later = EntitlementRecord(7, 250, NOW + 9_000, bytes(16), starts_at=NOW + 5_000)
    states = [
        State(True, NOW),
        State(True, NOW + 1, records),
        State(True, NOW + 2, (*records * 6, later)),
        State(False, NOW + 3),
    ]
    made = [(Kind.STATE, NOW + n, state.to_payload()) for n, state in enumerate(states)]
    shares = segment_text("Grüß Gott 📺 " * 30)
    made += [
        (Kind.MESSAGE, 9, Message(n, len(shares), 60, 1, 2, NOW + 99, share).to_payload())
        for n, share in enumerate(shares, 1)
    ]
    made.append((Kind.MESSAGE, 10, Message(1, 1, 0, 0, 0, NOW + 99, "x").to_payload()))
    made.append((Kind.WITHDRAWAL, 10, Withdrawal(NOW + 99).to_payload()))
    return made


def seal(kind: Kind, number: int, payload: bytes) -> list[bytes]:
    """Seal a payload for the box of these seeds; the same payload gives the same sections."""
    kek = derive_kek(DEVICE_KEY, CA_SYSTEM_ID, DEVICE_ID, _EPOCH)
    return seal_set(
        kek,
        bytes(16),
        address=DEVICE_ID,
        kind=kind,
        epoch=_EPOCH,
        number=number,
        payload=payload,
    )


def emm_sections() -> list[bytes]:
    """Every EMM, sealed."""
    return [section for made in payloads() for section in seal(*made)]


def sessions(version: int, flag: int) -> tuple[list[bytes], list[bytes]]:
    """One session from connect to close: the messages of the EMMG, and those of the MUX."""
    emmg = EmmgConnection(version, CLIENT_ID, 1, flag)
    mux = MuxConnection()
    said: dict[object, list[bytes]] = {emmg: [], mux: []}

    def settle() -> None:
        while (to_mux := emmg.data_to_send()) or mux:
            said[emmg] += [to_mux] if to_mux else []
            for event in mux.receive(to_mux, 0.0):
                _agree(mux, event)
            if not (to_emmg := mux.data_to_send()):
                return
            said[mux].append(to_emmg)
            emmg.receive(to_emmg, 0.0)

    emmg.open_channel(0.0)
    settle()
    emmg.open_stream(1, 1, DataType.EMM, 0.0)
    settle()
    emmg.request_bandwidth(1, 1000, 0.0)
    settle()
    sections = emm_sections()
    data = [b"".join(packetize_section(each, 0x1FFF)) for each in sections] if flag else sections
    for start in range(0, len(data), 3):
        provided = emmg.provide(1, data[start : start + 3])
        said[emmg].append(provided)
        mux.receive(provided, 0.0)
    for end in (emmg, mux):
        end.handle_timeout(11.0)
    settle()
    mux.allocate(1, 500)
    mux.refuse_stream(1, ErrorStatus.EXCEEDED_BANDWIDTH, b"why")
    settle()
    emmg.close_stream(1, 12.0)
    settle()
    emmg.close_channel()
    settle()
    return said[emmg], said[mux]


def _agree(mux: MuxConnection, event: object) -> None:
    match event:
        case ChannelSetup():
            mux.accept_channel(event.section_tspkt_flag)
        case StreamSetup():
            mux.accept_stream(event.stream_id)
        case BandwidthRequested():
            mux.allocate(event.stream_id, event.kbit_s)
        case StreamCloseRequested():
            mux.confirm_stream_close(event.stream_id)


def tables() -> list[bytes]:
    """A section of each table."""
    ca = CaDescriptor(CA_SYSTEM_ID, EMM_PID, b"private")
    service = Descriptor(0x48, b"\x01\x03abc\x04name")
    streams = (ElementaryStream(2, 256, (service,)), ElementaryStream(4, 257, (ca, service)))
    return [
        Pat(1, 3, {0: 16, 1: 256, 65535: 8190}).to_section(),
        Cat(31, (ca, service, ca)).to_section(),
        Cat(0, (), current=False, section_number=1, last_section_number=2).to_section(),
        Pmt(1, 0, 256, (ca,), streams).to_section(),
        Tdt(datetime.fromtimestamp(NOW, UTC)).to_section(),
    ]


def stream() -> bytes:
    """A transport stream that leads a box to its EMMs."""
    cat = Cat(1, (CaDescriptor(CA_SYSTEM_ID, EMM_PID, b""),)).to_section()
    packets = packetize_section(cat, 1)
    packets += packetize_section(Tdt(datetime.fromtimestamp(NOW, UTC)).to_section(), 0x14)
    counter = 0
    for section in emm_sections():
        more = packetize_section(section, EMM_PID, counter)
        counter += len(more)
        packets += [*more, NULL_PACKET]
    return b"".join(packets)


def udp_provisions() -> list[bytes]:
    """EMMs over UDP."""
    return [encode_udp_provision(version, CLIENT_ID, 1, emm_sections()[:3]) for version in (2, 3)]


def emmg_says() -> list[bytes]:
    """Whole sessions, as a MUX hears them."""
    return [b"".join(sessions(version, flag)[0]) for version in (2, 3, 5) for flag in (0, 1)]


def mux_says() -> list[bytes]:
    """Whole sessions, as an EMMG hears them."""
    return [b"".join(sessions(version, flag)[1]) for version in (2, 3, 5) for flag in (0, 1)]


def messages() -> list[bytes]:
    """Single messages of both ends."""
    return [each for version in (2, 3, 5) for side in sessions(version, 0) for each in side]


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "emmg_connection": mux_says,
    "mux_connection": emmg_says,
    "cycler_session": mux_says,
    "mux_session": emmg_says,
    "message": messages,
    "udp_provision": udp_provisions,
    "psi": tables,
    "stream": lambda: [stream(), stream()[188 * 2 :], NULL_PACKET * 4],
    "box_sections": lambda: [*emm_sections(), b"".join(emm_sections())],
    "box_payloads": lambda: [
        bytes((kind,)) + number.to_bytes(4) + payload for kind, number, payload in payloads()
    ],
    "emm_decode": lambda: [*emm_sections(), *(payload for _, _, payload in payloads())],
    "decode_command": lambda: [*emm_sections(), stream()],
}
