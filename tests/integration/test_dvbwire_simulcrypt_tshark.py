"""A whole EMMG session as others read it: Wireshark's dissector and the package `simulcrypt`."""

import struct
import subprocess
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest
from simulcrypt.message import SimulcryptMessage

from dvbwire.simulcrypt import (
    EmmgConnection,
    ErrorStatus,
    Message,
    MessageReader,
    MessageType,
    MuxConnection,
    ParameterType,
)
from dvbwire.ts import packetize_section

PORT = 32_000
EMMG_TO_MUX = 0
MUX_TO_EMMG = 1
SECTION = b"\x82\x70\xb4" + bytes(range(180))
EMPTY_SECTION = b"\x82\x70\x00"
PACKETS = packetize_section(SECTION, 0x1FFF)

# Each field of the dissector and the parameter it shows.
FIELDS = {
    "simulcrypt.client_id": ParameterType.CLIENT_ID,
    "simulcrypt.data_channel_id": ParameterType.DATA_CHANNEL_ID,
    "simulcrypt.data_stream_id": ParameterType.DATA_STREAM_ID,
    "simulcrypt.data_id": ParameterType.DATA_ID,
    "simulcrypt.data_type": ParameterType.DATA_TYPE,
    "simulcrypt.bandwidth": ParameterType.BANDWIDTH,
    "simulcrypt.section_tspkt_flag": ParameterType.SECTION_TSPKT_FLAG,
    "simulcrypt.error_status": ParameterType.ERROR_STATUS,
    "simulcrypt.datagram": ParameterType.DATAGRAM,
    "simulcrypt.error_information": ParameterType.ERROR_INFORMATION,
}


def session(version: int, flag: int) -> tuple[list[tuple[int, bytes]], list[bytes]]:
    """Play a session with every message of the interface.

    Returns what went over TCP as (direction, bytes) and what went over UDP.
    """
    emmg, mux = EmmgConnection(version, 0xFFF00001, 4, flag), MuxConnection()
    tcp: list[tuple[int, bytes]] = []

    def exchange() -> None:
        while sent := emmg.data_to_send():
            tcp.append((EMMG_TO_MUX, sent))
            mux.receive(sent, 0.0)
        while sent := mux.data_to_send():
            tcp.append((MUX_TO_EMMG, sent))
            emmg.receive(sent, 0.0)

    emmg.open_channel(0.0)
    exchange()
    mux.refuse_channel(ErrorStatus.CLIENT_ID_IN_USE, b"standby")
    exchange()
    emmg.open_channel(0.0)
    exchange()
    mux.accept_channel(flag)
    exchange()
    emmg.open_stream(7, 9, 0, 0.0)
    emmg.open_stream(8, 10, 1, 0.0)
    exchange()
    mux.accept_stream(7)
    mux.refuse_stream(8, ErrorStatus.TOO_MANY_STREAMS_ON_CHANNEL)
    exchange()
    emmg.request_bandwidth(7, 1000, 0.0)
    exchange()
    mux.allocate(7, 500)
    mux.allocate(7, None)
    exchange()
    datagrams = PACKETS * 7 if flag else [SECTION, EMPTY_SECTION]
    tcp.append((EMMG_TO_MUX, emmg.provide(7, datagrams) + emmg.provide(7, datagrams[:1])))
    for end in (emmg, mux):
        end.handle_timeout(10.0)
        exchange()
        exchange()
    udp = [emmg.provide_udp(7, datagrams)]
    emmg.close_stream(7, 0.0)
    exchange()
    mux.confirm_stream_close(7)
    exchange()
    emmg.close_channel()
    exchange()
    return tcp, udp


def frame(direction: int, protocol: int, transport: bytes) -> bytes:
    """Wrap TCP or UDP into IPv4 between 10.0.0.1 and 10.0.0.2, and Ethernet, for a pcap file."""
    addresses = [bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))]
    source, target = addresses[direction], addresses[1 - direction]
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(transport), 0, 0, 64, protocol, 0)
    packet = bytes(12) + b"\x08\x00" + ip + source + target + transport
    return struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet


def tcp_frames(talk: list[tuple[int, bytes]], sizes: list[int]) -> Iterator[bytes]:
    """Cut a conversation into TCP segments of the given sizes, over and over."""
    ports = [40_000, PORT]
    sequence = [1000, 5000]
    size = cycle(sizes)

    def segment(direction: int, flags: int, data: bytes = b"") -> bytes:
        header = struct.pack(
            ">HHIIBBHHH",
            ports[direction],
            ports[1 - direction],
            sequence[direction],
            sequence[1 - direction] if flags & 0x10 else 0,
            0x50,
            flags,
            65_535,
            0,
            0,
        )
        sequence[direction] += len(data) + (flags & 0x03 != 0)
        return frame(direction, 6, header + data)

    yield segment(EMMG_TO_MUX, 0x02)
    yield segment(MUX_TO_EMMG, 0x12)
    yield segment(EMMG_TO_MUX, 0x10)
    for direction, data in talk:
        rest = data
        while rest:
            cut = next(size)
            yield segment(direction, 0x18, rest[:cut])
            rest = rest[cut:]
        yield segment(1 - direction, 0x10)
    yield segment(EMMG_TO_MUX, 0x11)
    yield segment(MUX_TO_EMMG, 0x11)
    yield segment(EMMG_TO_MUX, 0x10)


def udp_frame(data: bytes) -> bytes:
    """Make one UDP datagram to the MUX."""
    return frame(EMMG_TO_MUX, 17, struct.pack(">HHHH", 40_001, PORT, 8 + len(data), 0) + data)


def write_capture(path: Path, frames: Iterator[bytes] | list[bytes]) -> None:
    """Write a pcap file of Ethernet frames."""
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)
    path.write_bytes(header + b"".join(frames))


def dissect(capture: Path, *arguments: str) -> str:
    """Return what tshark prints of a capture with the MUX port taken for SimulCrypt."""
    ports = ["-d", f"tcp.port=={PORT},simulcrypt", "-d", f"udp.port=={PORT},simulcrypt"]
    command = ["tshark", "-n", "-r", str(capture), *ports, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return run.stdout


def dissected_fields(capture: Path) -> list[dict[str, list[str]]]:
    """Return per frame with SimulCrypt what the dissector found, every occurrence."""
    names = ["simulcrypt.version", "simulcrypt.message.type", *FIELDS]
    wanted = [argument for name in names for argument in ("-e", name)]
    layout = ["-T", "fields", "-E", "occurrence=a", "-E", "aggregator=;", "-E", "separator=|"]
    rows = dissect(capture, "-Y", "simulcrypt", *layout, *wanted).splitlines()
    return [
        {
            name: [value for value in cell.split(";") if value]
            for name, cell in zip(names, row.split("|"), strict=True)
        }
        for row in rows
    ]


def expected_fields(messages: list[Message]) -> dict[str, list[str]]:
    """Return the same fields as our own messages have them, in order."""
    found: dict[str, list[str]] = {
        "simulcrypt.version": [f"0x{message.version:02x}" for message in messages],
        "simulcrypt.message.type": [f"0x{message.type:04x}" for message in messages],
    }
    for name, parameter in FIELDS.items():
        values = [value for message in messages for value in message.values(parameter)]
        if parameter in {ParameterType.DATAGRAM, ParameterType.ERROR_INFORMATION}:
            found[name] = [value.hex() for value in values]
        elif parameter is ParameterType.SECTION_TSPKT_FLAG:
            found[name] = [f"0x{value.hex()}" for value in values]
        else:
            found[name] = [str(int.from_bytes(value)) for value in values]
    return found


def messages_of(talk: list[tuple[int, bytes]]) -> list[Message]:
    """Return all messages of a conversation, in the order they were completed."""
    readers = [MessageReader(), MessageReader()]
    return [
        Message.decode(raw) for direction, data in talk for raw in readers[direction].feed(data)
    ]


def complaints(capture: Path) -> str:
    """Return what tshark thinks malformed or notes as a warning or worse."""
    serious = '_ws.malformed || _ws.expert.severity == "Warning" || _ws.expert.severity == "Error"'
    return dissect(capture, "-Y", serious)


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("flag", [0, 1])
@pytest.mark.parametrize("sizes", [[1460], [1], [3, 50, 7, 200], [2000]])
def test_wireshark_reads_every_message_as_meant(
    tmp_path: Path, version: int, flag: int, sizes: list[int]
) -> None:
    """Over TCP, in whole segments and in splinters: same messages, same values, no complaint."""
    talk, _ = session(version, flag)
    capture = tmp_path / "tcp.pcap"
    write_capture(capture, tcp_frames(talk, sizes))
    expected = messages_of(talk)
    assert {message.type for message in expected} == set(MessageType)
    rows = dissected_fields(capture)
    seen = {name: [value for row in rows for value in row[name]] for name in rows[0]}
    assert seen == expected_fields(expected)
    assert complaints(capture) == ""


@pytest.mark.parametrize("version", [2, 3, 5])
def test_wireshark_reads_a_provision_over_udp(tmp_path: Path, version: int) -> None:
    """Without channel and stream ids."""
    _, udp = session(version, flag=1)
    capture = tmp_path / "udp.pcap"
    write_capture(capture, [udp_frame(data) for data in udp])
    (row,) = dissected_fields(capture)
    assert row == expected_fields([Message.decode(data) for data in udp])
    assert row["simulcrypt.data_stream_id"] == []
    assert complaints(capture) == ""


def test_the_complaints_are_not_deaf(tmp_path: Path) -> None:
    """A damaged parameter length is noticed, or the tests above would prove nothing."""
    _, (udp,) = session(3, flag=1)
    capture = tmp_path / "bad.pcap"
    damaged = udp[:7] + b"\xff\xff" + udp[9:]
    write_capture(capture, [udp_frame(damaged)])
    assert complaints(capture) != ""


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("flag", [0, 1])
def test_the_package_simulcrypt_reads_the_same(version: int, flag: int) -> None:
    """Every message over TCP is valid to it and has our values.

    It finds data_provision over UDP valid too. It returns a parameter that occurs once as a value
    and more often as a list, and it drops parameters without a value, which we never send.
    """
    talk, udp = session(version, flag)
    for message in [*messages_of(talk), *map(Message.decode, udp)]:
        read = SimulcryptMessage(message.encode())
        assert read.is_valid, read.error_message
        assert (read.version, read.type, read.leftover) == (version, message.type, b"")
        parameters = [(each.type, each.value) for each in read.parameters]
        assert parameters == list(message.parameters)


def test_what_the_package_simulcrypt_writes_is_read() -> None:
    """The other way round: its stream_setup and its data_provision at our MUX end."""
    mux = MuxConnection()
    ids = {"version": 3, "client_id": 0xFFF00001, "data_channel_id": 4}
    setup = SimulcryptMessage(type=0x0011, section_TSpkt_flag=1, **ids)
    mux.receive(setup.data, 0.0)
    assert mux.accept_channel(1)
    stream = SimulcryptMessage(type=0x0111, data_stream_id=7, data_id=9, data_type=0, **ids)
    mux.receive(stream.data, 0.0)
    assert mux.accept_stream(7)
    data = SimulcryptMessage(type=0x0211, data_stream_id=7, data_id=9, datagram=PACKETS * 2, **ids)
    (provided,) = mux.receive(data.data, 0.0)
    assert getattr(provided, "datagrams", None) == (PACKETS[0], PACKETS[0])
