"""SimulCrypt messages: vectors, grammar, framing, provision."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvbwire.errors import DvbWireError
from dvbwire.simulcrypt import (
    GRAMMAR,
    SUPPORTED_VERSIONS,
    ErrorStatus,
    LocalProtocolError,
    Message,
    MessageReader,
    MessageType,
    ParameterType,
    RemoteProtocolError,
    SimulcryptError,
    UdpProvision,
    datagram_fits,
    decode_udp_provision,
    describe_error_status,
    encode_udp_provision,
)
from dvbwire.ts import NULL_PACKET

P = ParameterType

# 03 version, 0011 channel_setup, 0013 length; 0001 0004 client_id; 0003 0002 data_channel_id;
# 0002 0001 section_TSpkt_flag.
CHANNEL_SETUP = bytes.fromhex("03 0011 0013 0001 0004 fff00001 0003 0002 0007 0002 0001 01")
# 02 version, 0211 data_provision, 0016 length; client_id; 0008 0002 data_id; 0005 0004 datagram.
UDP_PROVISION = bytes.fromhex("02 0211 0016 0001 0004 fff00001 0008 0002 0009 0005 0004 82700161")


def test_a_channel_setup_is_written_as_the_standard_lays_it_out() -> None:
    """Header of five bytes, then type, length and value of each parameter."""
    message = Message.build(
        3,
        MessageType.CHANNEL_SETUP,
        (P.CLIENT_ID, 0xFFF00001),
        (P.DATA_CHANNEL_ID, 7),
        (P.SECTION_TSPKT_FLAG, 1),
    )
    assert message.encode() == CHANNEL_SETUP
    assert Message.decode(CHANNEL_SETUP) == message
    assert message.number(P.CLIENT_ID) == 0xFFF00001
    assert message.optional_number(P.BANDWIDTH) is None
    assert message.unknown_parameters == 0


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Any message the grammar allows, its parameters in any order."""
    message_type = draw(st.sampled_from(MessageType))
    version = draw(st.sampled_from(sorted(SUPPORTED_VERSIONS)))
    parameters: list[tuple[ParameterType, int | bytes]] = []
    for parameter, rule in GRAMMAR[message_type].items():
        at_most = 4 if rule.at_most is None else rule.at_most
        for _ in range(draw(st.integers(rule.at_least, at_most))):
            if parameter in {P.SECTION_TSPKT_FLAG, P.DATA_TYPE}:
                parameters.append((parameter, draw(st.integers(0, 1))))
            elif rule.size is not None:
                parameters.append((parameter, draw(st.integers(0, 256**rule.size - 1))))
            else:
                parameters.append((parameter, draw(st.binary(max_size=400))))
    return Message.build(version, message_type, *draw(st.permutations(parameters)))


@given(messages())
def test_every_message_comes_back(message: Message) -> None:
    """Encode and decode are each other's inverse over the whole grammar."""
    assert Message.decode(message.encode()) == message


@given(messages(), st.integers(0x0009, 0x6FFF), st.binary(max_size=9), st.data())
def test_unknown_parameters_are_kept_counted_and_forgiven(
    message: Message, number: int, value: bytes, data: st.DataObject
) -> None:
    """Clause 4.4.1: what is not known is ignored."""
    at = data.draw(st.integers(0, len(message.parameters)))
    parameters = (*message.parameters[:at], (number, value), *message.parameters[at:])
    read = Message.decode(Message(message.version, message.type, parameters).encode())
    assert read.unknown_parameters == 1
    assert read.parameters == parameters


@given(messages(), st.data())
def test_any_missing_parameter_is_named(message: Message, data: st.DataObject) -> None:
    """Dropping every occurrence of a mandatory parameter is error_status 0x000C."""
    mandatory = [p for p, rule in GRAMMAR[MessageType(message.type)].items() if rule.at_least]
    dropped = data.draw(st.sampled_from(mandatory))
    rest = tuple(each for each in message.parameters if each[0] != dropped)
    with pytest.raises(RemoteProtocolError) as caught:
        Message(message.version, message.type, rest).validate()
    assert caught.value.error_status is ErrorStatus.MISSING_PARAMETER


def test_version_1_knows_no_data_id() -> None:
    """data_id came with version 2; before, it counts as unknown."""
    ids = ((P.CLIENT_ID, b"\0\0\0\1"), (P.DATA_CHANNEL_ID, b"\0\1"), (P.DATA_STREAM_ID, b"\0\1"))
    old = Message(1, MessageType.STREAM_SETUP, (*ids, (P.DATA_TYPE, b"\0")))
    old.validate()
    newer = Message(1, MessageType.STREAM_SETUP, (*ids, (P.DATA_TYPE, b"\0"), (P.DATA_ID, b"\0\1")))
    newer.validate()
    assert newer.unknown_parameters == 1


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("", ErrorStatus.INCONSISTENT_LENGTH),
        ("03001100", ErrorStatus.INCONSISTENT_LENGTH),
        ("0300110001", ErrorStatus.INCONSISTENT_LENGTH),
        ("0300110000aa", ErrorStatus.INCONSISTENT_LENGTH),
        ("0300110003 000100", ErrorStatus.INCONSISTENT_LENGTH),
        ("0300110006 0001 0004 0000", ErrorStatus.INCONSISTENT_LENGTH),
        ("0300120010 0001 0003 000001 0003 0003 000007 0000", ErrorStatus.INCONSISTENT_LENGTH),
        ("03001200 0d 0001 0003 000001 0003 0002 0007", ErrorStatus.INCONSISTENT_LENGTH),
        ("0300120008 0001 0004 00000001", ErrorStatus.MISSING_PARAMETER),
        (
            "0300120014 0001 0004 00000001 0003 0002 0007 0003 0002 0007",
            ErrorStatus.INVALID_MESSAGE,
        ),
        ("0300110013 0001 0004 00000001 0003 0002 0007 0002 0001 02", ErrorStatus.INVALID_VALUE),
        ("0500110013 0001 0004 00000001 0003 0002 0007 0002 0001 03", ErrorStatus.INVALID_VALUE),
        ("0300010000", ErrorStatus.UNKNOWN_MESSAGE_TYPE),
    ],
)
def test_a_message_against_the_grammar_says_what_to_answer(raw: str, status: ErrorStatus) -> None:
    """Each check, by the error_status it hints at."""
    with pytest.raises(RemoteProtocolError) as caught:
        Message.decode(bytes.fromhex(raw))
    assert caught.value.error_status is status
    assert isinstance(caught.value, SimulcryptError)
    assert isinstance(caught.value, DvbWireError)


def test_dvb_h_has_a_flag_of_its_own() -> None:
    """section_TSpkt_flag 2 belongs to version 5 alone."""
    Message.decode(b"\x05" + CHANNEL_SETUP[1:-1] + b"\x02")


@pytest.mark.parametrize(
    "parameters",
    [
        ((P.CLIENT_ID, 1 << 32), (P.DATA_CHANNEL_ID, 1)),
        ((P.CLIENT_ID, -1), (P.DATA_CHANNEL_ID, 1)),
        ((P.CLIENT_ID, 1),),
        ((P.CLIENT_ID, 1), (P.DATA_CHANNEL_ID, b"abc")),
        ((P.CLIENT_ID, 1), (P.DATA_CHANNEL_ID, 1), (P.BANDWIDTH, b"ab")),
        ((P.CLIENT_ID, 1), (P.DATA_CHANNEL_ID, 1), (P.DATAGRAM, 1)),
    ],
)
def test_this_end_cannot_write_nonsense(
    parameters: tuple[tuple[ParameterType, int | bytes], ...],
) -> None:
    """What the grammar forbids is a local error, before anything is sent."""
    with pytest.raises(LocalProtocolError):
        Message.build(3, MessageType.CHANNEL_TEST, *parameters)


def test_a_message_ends_at_what_its_length_can_say() -> None:
    """65,535 bytes of parameters and not one more."""
    ids = ((P.CLIENT_ID, 1), (P.DATA_ID, 1))
    room = 65_535 - 8 - 6 - 4
    full = Message.build(3, MessageType.DATA_PROVISION, *ids, (P.DATAGRAM, bytes(room)))
    assert len(full.encode()) == 65_540
    over = Message.build(3, MessageType.DATA_PROVISION, *ids, (P.DATAGRAM, bytes(room + 1)))
    with pytest.raises(LocalProtocolError):
        over.encode()


@given(st.lists(messages(), max_size=8), st.lists(st.integers(0, 200), max_size=30))
def test_messages_come_out_of_any_cut(sent: list[Message], cuts: list[int]) -> None:
    """Whole messages, in order, whatever pieces TCP delivers."""
    stream = b"".join(message.encode() for message in sent)
    reader = MessageReader()
    found: list[bytes] = []
    for cut in [*cuts, len(stream)]:
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert [Message.decode(raw) for raw in found] == sent


@given(st.lists(st.binary(max_size=2000), max_size=60))
def test_a_reader_holds_at_most_one_message(noise: list[bytes]) -> None:
    """Noise cannot make it hoard."""
    reader = MessageReader()
    for piece in noise:
        reader.feed(piece)
        assert len(reader._pending) < 65_540


@given(st.binary(max_size=200))
def test_noise_is_a_message_or_a_typed_error(noise: bytes) -> None:
    """Nothing else escapes a decoder."""
    for decode in (Message.decode, decode_udp_provision):
        try:
            decode(noise)
        except RemoteProtocolError as error:
            assert error.error_status in set(ErrorStatus)


def test_a_udp_provision_is_written_as_the_standard_lays_it_out() -> None:
    """Without data_channel_id and data_stream_id."""
    assert encode_udp_provision(2, 0xFFF00001, 9, [b"\x82\x70\x01a"]) == UDP_PROVISION
    assert decode_udp_provision(UDP_PROVISION) == UdpProvision(
        version=2,
        client_id=0xFFF00001,
        data_id=9,
        data_channel_id=None,
        data_stream_id=None,
        datagrams=(b"\x82\x70\x01a",),
    )


def test_a_udp_provision_with_channel_and_stream_is_taken_too() -> None:
    """Some senders put them in all the same."""
    message = Message.build(
        3,
        MessageType.DATA_PROVISION,
        (P.CLIENT_ID, 1),
        (P.DATA_CHANNEL_ID, 2),
        (P.DATA_STREAM_ID, 3),
        (P.DATA_ID, 4),
        (P.DATAGRAM, b"a"),
        (P.DATAGRAM, b"b"),
    )
    read = decode_udp_provision(message.encode())
    assert (read.data_channel_id, read.data_stream_id) == (2, 3)
    assert read.datagrams == (b"a", b"b")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (UDP_PROVISION + b"\0", ErrorStatus.INCONSISTENT_LENGTH),
        (UDP_PROVISION[:-1], ErrorStatus.INCONSISTENT_LENGTH),
        (b"\x01" + UDP_PROVISION[1:], ErrorStatus.UNSUPPORTED_VERSION),
        (b"\x04" + UDP_PROVISION[1:], ErrorStatus.UNSUPPORTED_VERSION),
        (CHANNEL_SETUP, ErrorStatus.INVALID_MESSAGE),
    ],
)
def test_only_one_data_provision_may_come_over_udp(raw: bytes, status: ErrorStatus) -> None:
    """Anything else has its reason, though UDP has no way back."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode_udp_provision(raw)
    assert caught.value.error_status is status


@pytest.mark.parametrize(
    ("client_id", "data_id", "datagrams"),
    [
        (1, 1, []),
        (1 << 32, 1, [b"a"]),
        (1, 1 << 16, [b"a"]),
        (1, -1, [b"a"]),
        (1, 1, [bytes(65_500)]),
        (1, 1, [bytes(40_000), bytes(40_000)]),
    ],
)
def test_a_udp_provision_that_cannot_be_is_refused(
    client_id: int, data_id: int, datagrams: list[bytes]
) -> None:
    """Ids out of range, nothing to send, or more than UDP carries."""
    with pytest.raises(LocalProtocolError):
        encode_udp_provision(3, client_id, data_id, datagrams)


@pytest.mark.parametrize(
    ("flag", "datagram", "fits"),
    [
        (0, b"\x82\x70\x01a", True),
        (0, b"\x82\x70\x00", True),
        (0, b"\x82\x70\x01ab", False),
        (0, b"\x82\x70", False),
        (0, b"", False),
        (0, NULL_PACKET, False),
        (1, NULL_PACKET, True),
        (1, NULL_PACKET * 7, True),
        (1, NULL_PACKET[1:], False),
        (1, NULL_PACKET[1:] + b"\x47", False),
        (1, b"", False),
        (1, b"\x82\x70\xb9" + bytes(185), False),
        (2, b"x", True),
        (2, b"", False),
    ],
)
def test_a_datagram_is_what_the_flag_says(flag: int, datagram: bytes, *, fits: bool) -> None:
    """One whole section, whole packets, or (version 5) whatever DVB-H defines."""
    assert datagram_fits(flag, datagram) is fits


def test_error_statuses_are_described_whatever_they_are() -> None:
    """Names of the standard, and what the rest of the range is for."""
    assert describe_error_status(0x000F) == "exceeded_bandwidth (0x000F)"
    assert describe_error_status(0x0042) == "reserved (0x0042)"
    assert describe_error_status(0x8001) == "user_defined (0x8001)"
