"""Channels, streams, PIDs and bandwidth; what a datagram is made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvbwire.psi import CaDescriptor
from dvbwire.simulcrypt import DataType, ErrorStatus, SectionTspktFlag
from dvbwire.ts import NULL_PACKET, NULL_PID, packetize_section, pid_of
from portcullis.mux.streams import MAX_CHANNELS, Channel, RefusedError, StreamTable, packets_of

CLIENT = 0xFFF00001
FIRST_PID = 0x1F00
HERE = "127.0.0.1"


def _table() -> StreamTable:
    return StreamTable(FIRST_PID, max_streams=2, max_kbit_s=1000)


def _channel(table: StreamTable, client_id: int = CLIENT, channel_id: int = 1) -> Channel:
    return table.open_channel(client_id, channel_id, SectionTspktFlag.PACKETS, HERE)


def test_each_stream_gets_the_next_pid_and_a_place_in_the_cat() -> None:
    """The CA_system_id is the upper half of the client_id; private data is not announced."""
    table = StreamTable(FIRST_PID, max_streams=3, max_kbit_s=1000)
    channel = _channel(table)
    other = _channel(table, client_id=0x01000002)
    pids = [
        table.open_stream(channel, 1, 10, DataType.EMM).queue.pid,
        table.open_stream(channel, 2, 11, DataType.PRIVATE_DATA).queue.pid,
        table.open_stream(other, 1, 10, DataType.EMM).queue.pid,
    ]
    assert pids == [FIRST_PID, FIRST_PID + 1, FIRST_PID + 2]
    assert table.descriptors() == [
        CaDescriptor(0xFFF0, FIRST_PID),
        CaDescriptor(0x0100, FIRST_PID + 2),
    ]


def test_a_stream_keeps_pid_and_announcement_while_its_emmg_is_away() -> None:
    """Boxes must find the PID until it is back."""
    table = _table()
    channel = _channel(table)
    first = table.open_stream(channel, 1, 10, DataType.EMM)
    table.close_channel(channel)
    assert table.descriptors() == [CaDescriptor(0xFFF0, FIRST_PID)]
    assert not first.is_open
    again = _channel(table)
    table.open_stream(again, 1, 11, DataType.EMM)
    assert table.open_stream(again, 2, 10, DataType.EMM) is first
    assert first.is_open


def test_the_stream_closed_longest_gives_its_pid_up_when_none_is_left() -> None:
    """And none that is open ever does."""
    table = _table()
    channel = _channel(table)
    for data_id in (10, 11):
        table.open_stream(channel, data_id, data_id, DataType.EMM)
    with pytest.raises(RefusedError) as refused:
        table.open_stream(channel, 12, 12, DataType.EMM)
    assert refused.value.error_status is ErrorStatus.TOO_MANY_STREAMS_ON_MUX
    table.close_stream(channel, 11)
    table.close_stream(channel, 10)
    assert table.open_stream(channel, 12, 12, DataType.EMM).queue.pid == FIRST_PID + 1
    assert {stream.data_id for stream in table} == {10, 12}


def test_ids_in_use_are_refused_as_the_standard_says() -> None:
    """0x11 a channel twice, 0x13 a stream twice, 0x14 a client at two addresses."""
    table = _table()
    channel = _channel(table)
    table.open_stream(channel, 1, 10, DataType.EMM)
    second = _channel(table, channel_id=2)
    with pytest.raises(RefusedError) as refused:
        _channel(table)
    assert refused.value.error_status is ErrorStatus.DATA_CHANNEL_ID_IN_USE
    with pytest.raises(RefusedError) as refused:
        table.open_channel(CLIENT, 3, SectionTspktFlag.PACKETS, "127.0.0.2")
    assert refused.value.error_status is ErrorStatus.CLIENT_ID_IN_USE
    with pytest.raises(RefusedError) as refused:
        table.open_stream(second, 1, 10, DataType.EMM)
    assert refused.value.error_status is ErrorStatus.DATA_ID_IN_USE
    table.close_channel(channel)
    table.open_stream(second, 1, 10, DataType.EMM)


def test_dvb_h_and_too_many_channels_are_refused() -> None:
    """0x0D and 0x07."""
    table = _table()
    with pytest.raises(RefusedError) as refused:
        table.open_channel(CLIENT, 1, SectionTspktFlag.DVB_H, HERE)
    assert refused.value.error_status is ErrorStatus.INVALID_VALUE
    for channel_id in range(MAX_CHANNELS):
        _channel(table, channel_id=channel_id)
    with pytest.raises(RefusedError) as refused:
        _channel(table, channel_id=MAX_CHANNELS)
    assert refused.value.error_status is ErrorStatus.TOO_MANY_CHANNELS


def test_bandwidth_is_what_was_asked_up_to_the_limit() -> None:
    """Asked for nothing, the MUX says what is granted."""
    table = _table()
    stream = table.open_stream(_channel(table), 1, 10, DataType.EMM)
    assert table.allocate(stream, None) == 1000
    assert table.allocate(stream, 300) == 300
    assert table.allocate(stream, None) == 300
    assert table.allocate(stream, 5000) == 1000
    assert table.allocated_kbit_s == 1000


def test_a_stream_over_udp_is_found_by_its_ids_while_open() -> None:
    """Without channel and stream ids, as the standard has it over UDP."""
    table = _table()
    channel = _channel(table)
    stream = table.open_stream(channel, 1, 10, DataType.EMM)
    assert table.find(CLIENT, 10) == (stream, channel)
    assert table.find(CLIENT, 11) is None
    table.close_stream(channel, 1)
    assert table.find(CLIENT, 10) is None


@given(st.binary(max_size=400))
def test_any_datagram_becomes_packets_or_is_refused(datagram: bytes) -> None:
    """Never an exception, never a packet of another size."""
    for flag in (SectionTspktFlag.SECTIONS, SectionTspktFlag.PACKETS):
        for packet in packets_of(flag, datagram) or []:
            assert len(packet) == 188
            assert packet[0] == 0x47


def test_sections_are_packetized_and_packets_are_cut_apart() -> None:
    """One section, or n × 188 bytes."""
    section = b"\x82\x70\xc8" + bytes(200)
    packets = packets_of(SectionTspktFlag.SECTIONS, section)
    assert packets == packetize_section(section, NULL_PID)
    assert packets_of(SectionTspktFlag.PACKETS, b"".join(packets)) == packets
    assert {pid_of(packet) for packet in packets} == {NULL_PID}


@pytest.mark.parametrize(
    "packet",
    [
        b"\x46" + NULL_PACKET[1:],
        NULL_PACKET[:187],
        b"\x47\x9f" + NULL_PACKET[2:],
        b"\x47\x1f\xff\x20" + NULL_PACKET[4:],
        b"\x47\x1f\xff\x90" + NULL_PACKET[4:],
    ],
    ids=["no sync byte", "short", "damaged", "no payload", "scrambled"],
)
def test_a_packet_that_cannot_be_numbered_spoils_its_datagram(packet: bytes) -> None:
    """All of it is refused: half a section is of no use."""
    assert packets_of(SectionTspktFlag.PACKETS, NULL_PACKET + packet) is None
    assert packets_of(SectionTspktFlag.PACKETS, b"") is None
