"""What each end makes of a peer that breaks the rules, by the error_status it answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvbwire.simulcrypt import (
    ChannelError,
    ChannelState,
    DataProvided,
    EmmgConnection,
    ErrorStatus,
    Event,
    Message,
    MessageReader,
    MessageType,
    MuxConnection,
    ParameterType,
    PeerSentUnknown,
    ProtocolViolation,
    StreamError,
    StreamSetup,
    StreamState,
)
from dvbwire.ts import NULL_PACKET

P = ParameterType
M = MessageType
E = ErrorStatus

CHANNEL = ((P.CLIENT_ID, 1), (P.DATA_CHANNEL_ID, 2))
STREAM = (*CHANNEL, (P.DATA_STREAM_ID, 7))
FLAG = (P.SECTION_TSPKT_FLAG, 1)
SETUP = (*STREAM, (P.DATA_ID, 9), (P.DATA_TYPE, 0))
DATA = (*STREAM, (P.DATA_ID, 9), (P.DATAGRAM, NULL_PACKET))


def raw(message_type: MessageType, *parameters: tuple[ParameterType, int | bytes]) -> bytes:
    """Write a message of version 3, grammatical or not."""
    sizes = {P.CLIENT_ID: 4, P.SECTION_TSPKT_FLAG: 1, P.DATA_TYPE: 1}
    return Message(
        3,
        message_type,
        tuple(
            (int(p), v.to_bytes(sizes.get(p, 2)) if isinstance(v, int) else v)
            for p, v in parameters
        ),
    ).encode()


def sent(connection: MuxConnection | EmmgConnection) -> list[tuple[int, tuple[int, ...]]]:
    """Return (message_type, error_status values) of all that is queued."""
    messages = [Message.decode(each) for each in MessageReader().feed(connection.data_to_send())]
    return [(message.type, message.numbers(P.ERROR_STATUS)) for message in messages]


def violations(events: list[Event]) -> list[ErrorStatus]:
    """Return the error_status of each violation among the events."""
    return [event.error.error_status for event in events if isinstance(event, ProtocolViolation)]


def mux_open() -> MuxConnection:
    """Make a MUX end with channel 2 of client 1 and its stream 7 open, for packets."""
    mux = MuxConnection()
    mux.receive(raw(M.CHANNEL_SETUP, *CHANNEL, FLAG), 0.0)
    assert mux.accept_channel(1)
    mux.receive(raw(M.STREAM_SETUP, *SETUP), 0.0)
    assert mux.accept_stream(7)
    mux.data_to_send()
    return mux


def emmg_open() -> EmmgConnection:
    """Make an EMMG end with channel 2 of client 1 and its stream 7 open, for packets."""
    emmg = EmmgConnection(3, 1, 2, 1)
    emmg.open_channel(0.0)
    emmg.receive(raw(M.CHANNEL_STATUS, *CHANNEL, FLAG), 0.0)
    emmg.open_stream(7, 9, 0, 0.0)
    emmg.receive(raw(M.STREAM_STATUS, *SETUP), 0.0)
    emmg.data_to_send()
    assert emmg.stream_state(7) is StreamState.OPEN
    return emmg


OTHER_CLIENT = ((P.CLIENT_ID, 5), *STREAM[1:])
OTHER_CHANNEL = (STREAM[0], (P.DATA_CHANNEL_ID, 5), STREAM[2])
OTHER_STREAM = (*CHANNEL, (P.DATA_STREAM_ID, 5))


@pytest.mark.parametrize(
    ("message", "answer", "status", "channel", "stream"),
    [
        # about the stream: it alone is in error
        ((M.STREAM_SETUP, *SETUP), M.STREAM_ERROR, E.DATA_STREAM_ID_IN_USE, "OPEN", "IN_ERROR"),
        (
            (M.DATA_PROVISION, *STREAM, (P.DATA_ID, 5), (P.DATAGRAM, NULL_PACKET)),
            M.STREAM_ERROR,
            E.UNKNOWN_DATA_ID,
            "OPEN",
            "IN_ERROR",
        ),
        (
            (M.DATA_PROVISION, *STREAM, (P.DATA_ID, 9), (P.DATAGRAM, b"\x82\x70\x00")),
            M.STREAM_ERROR,
            E.INVALID_VALUE,
            "OPEN",
            "IN_ERROR",
        ),
        (
            (M.DATA_PROVISION, *STREAM, (P.DATA_ID, 9)),
            M.STREAM_ERROR,
            E.MISSING_PARAMETER,
            "OPEN",
            "IN_ERROR",
        ),
        (
            (M.STREAM_BW_REQUEST, *STREAM, (P.BANDWIDTH, b"\0\0\1")),
            M.STREAM_ERROR,
            E.INCONSISTENT_LENGTH,
            "OPEN",
            "IN_ERROR",
        ),
        ((M.STREAM_CLOSE_RESPONSE, *STREAM), M.STREAM_ERROR, E.INVALID_MESSAGE, "OPEN", "IN_ERROR"),
        ((M.STREAM_BW_ALLOCATION, *STREAM), M.STREAM_ERROR, E.INVALID_MESSAGE, "OPEN", "IN_ERROR"),
        # about a stream that is not there
        ((M.STREAM_TEST, *OTHER_STREAM), M.STREAM_ERROR, E.UNKNOWN_DATA_STREAM_ID, "OPEN", "OPEN"),
        (
            (M.DATA_PROVISION, *OTHER_STREAM, *DATA[3:]),
            M.STREAM_ERROR,
            E.UNKNOWN_DATA_STREAM_ID,
            "OPEN",
            "OPEN",
        ),
        # about another channel: ours is untouched
        ((M.STREAM_TEST, *OTHER_CLIENT), M.CHANNEL_ERROR, E.UNKNOWN_CLIENT_ID, "OPEN", "OPEN"),
        (
            (M.STREAM_TEST, *OTHER_CHANNEL),
            M.CHANNEL_ERROR,
            E.UNKNOWN_DATA_CHANNEL_ID,
            "OPEN",
            "OPEN",
        ),
        (
            (M.CHANNEL_CLOSE, *OTHER_CHANNEL[:2]),
            M.CHANNEL_ERROR,
            E.UNKNOWN_DATA_CHANNEL_ID,
            "OPEN",
            "OPEN",
        ),
        (
            (M.CHANNEL_SETUP, *OTHER_CHANNEL[:2], FLAG),
            M.CHANNEL_ERROR,
            E.TOO_MANY_CHANNELS,
            "OPEN",
            "OPEN",
        ),
        # about our channel: it is lost, with its streams
        (
            (M.CHANNEL_SETUP, *CHANNEL, FLAG),
            M.CHANNEL_ERROR,
            E.DATA_CHANNEL_ID_IN_USE,
            "IN_ERROR",
            "NOT_OPEN",
        ),
        (
            (M.STREAM_TEST, *CHANNEL),
            M.CHANNEL_ERROR,
            E.MISSING_PARAMETER,
            "IN_ERROR",
            "NOT_OPEN",
        ),
        (
            (M.DATA_PROVISION, *CHANNEL, *DATA[3:]),
            M.CHANNEL_ERROR,
            E.MISSING_PARAMETER,
            "IN_ERROR",
            "NOT_OPEN",
        ),
        (
            (M.CHANNEL_TEST, *CHANNEL, CHANNEL[0]),
            M.CHANNEL_ERROR,
            E.INVALID_MESSAGE,
            "IN_ERROR",
            "NOT_OPEN",
        ),
        # without a channel to speak of
        (
            (M.DATA_PROVISION, CHANNEL[0], *DATA[3:]),
            M.CHANNEL_ERROR,
            E.MISSING_PARAMETER,
            "OPEN",
            "OPEN",
        ),
    ],
)
def test_a_mux_answers_misuse_of_an_open_channel(
    message: tuple[MessageType, *tuple[tuple[ParameterType, int | bytes], ...]],
    answer: MessageType,
    status: ErrorStatus,
    channel: str,
    stream: str,
) -> None:
    """By the narrowest error: of the stream if it can be named, else of the channel."""
    mux = mux_open()
    assert violations(mux.receive(raw(*message), 1.0)) == [status]
    assert sent(mux) == [(answer, (status,))]
    assert (mux.channel_state.name, mux.stream_state(7).name) == (channel, stream)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (raw(M.CHANNEL_TEST, *CHANNEL), E.INVALID_MESSAGE),
        (raw(M.CHANNEL_CLOSE, *CHANNEL), E.INVALID_MESSAGE),
        (raw(M.STREAM_SETUP, *SETUP), E.INVALID_MESSAGE),
        (raw(M.DATA_PROVISION, *DATA), E.INVALID_MESSAGE),
        (raw(M.CHANNEL_SETUP, *CHANNEL), E.MISSING_PARAMETER),
        (raw(M.CHANNEL_SETUP, *CHANNEL, (P.SECTION_TSPKT_FLAG, 2)), E.INVALID_VALUE),
        (raw(M.CHANNEL_SETUP, *CHANNEL, (P.SECTION_TSPKT_FLAG, b"ab")), E.INCONSISTENT_LENGTH),
        (raw(M.CHANNEL_SETUP, *CHANNEL, FLAG, FLAG), E.INVALID_MESSAGE),
        (b"\x03\x00\x11\x00\x01\x00", E.INCONSISTENT_LENGTH),
        (b"\x04" + raw(M.CHANNEL_SETUP, *CHANNEL, FLAG)[1:], E.UNSUPPORTED_VERSION),
        (b"GET / HTTP/1.1\r\n".ljust(5 + 0x202F, b"\n"), E.UNSUPPORTED_VERSION),
    ],
)
def test_a_mux_wants_a_proper_set_up_first(message: bytes, status: ErrorStatus) -> None:
    """Anything else is answered with channel_error, and a proper one may still follow."""
    mux = MuxConnection()
    assert violations(mux.receive(message, 0.0)) == [status]
    assert sent(mux) == [(M.CHANNEL_ERROR, (status,))]
    assert mux.channel_state is ChannelState.NOT_OPEN
    mux.receive(raw(M.CHANNEL_SETUP, *CHANNEL, FLAG), 0.0)
    assert mux.accept_channel(1)


@pytest.mark.parametrize(("version", "answered"), [(1, 2), (4, 3), (6, 5), (0x47, 5), (0, 2)])
def test_an_unknown_version_is_answered_in_the_nearest_spoken(version: int, answered: int) -> None:
    """The next lower version, and the ids as they came."""
    mux = MuxConnection()
    mux.receive(bytes((version,)) + raw(M.CHANNEL_SETUP, *CHANNEL, FLAG)[1:], 0.0)
    message = Message.decode(mux.data_to_send())
    assert message.version == answered
    assert message.number(P.ERROR_STATUS) == E.UNSUPPORTED_VERSION
    assert (message.number(P.CLIENT_ID), message.number(P.DATA_CHANNEL_ID)) == (1, 2)


def test_a_session_keeps_its_version() -> None:
    """Another version in the middle loses the channel."""
    mux = mux_open()
    events = mux.receive(b"\x02" + raw(M.STREAM_TEST, *STREAM)[1:], 0.0)
    assert violations(events) == [E.UNSUPPORTED_VERSION]
    assert sent(mux) == [(M.CHANNEL_ERROR, (E.UNSUPPORTED_VERSION,))]
    assert mux.channel_state is ChannelState.IN_ERROR


def test_an_impatient_peer_does_not_disturb_the_answer() -> None:
    """A second channel_setup before the answer to the first is refused; the first stands."""
    mux = MuxConnection()
    setup = raw(M.CHANNEL_SETUP, *CHANNEL, FLAG)
    assert violations(mux.receive(setup + setup, 0.0)) == [E.DATA_CHANNEL_ID_IN_USE]
    assert mux.accept_channel(1)
    assert sent(mux) == [(M.CHANNEL_ERROR, (E.DATA_CHANNEL_ID_IN_USE,)), (M.CHANNEL_STATUS, ())]


def test_data_before_the_answer_loses_the_stream() -> None:
    """The stream is refused by itself, and the owner's late answer is dropped."""
    mux = mux_open()
    other = (*OTHER_STREAM, (P.DATA_ID, 10), (P.DATA_TYPE, 0))
    setup = raw(M.STREAM_SETUP, *other)
    data = raw(M.DATA_PROVISION, *OTHER_STREAM, (P.DATA_ID, 10), (P.DATAGRAM, NULL_PACKET))
    events = mux.receive(setup + data, 0.0)
    assert events[0] == StreamSetup(5, 10, 0)
    assert violations(events) == [E.INVALID_MESSAGE]
    assert mux.accept_stream(5) is False
    assert sent(mux) == [(M.STREAM_ERROR, (E.INVALID_MESSAGE,))]
    assert mux.stream_state(7) is StreamState.OPEN


@pytest.mark.parametrize("status", list(ErrorStatus))
@pytest.mark.parametrize("text", [b"", b"because"])
def test_every_error_status_travels(status: ErrorStatus, text: bytes) -> None:
    """From the owner of the MUX to the owner of the EMMG, for channel and stream."""
    mux, emmg = mux_open(), emmg_open()
    information = (text,) if text else ()
    assert mux.refuse_stream(7, status, text)
    assert emmg.receive(mux.data_to_send(), 0.0) == [StreamError(7, (status,), information)]
    assert mux.refuse_channel(status, text)
    assert emmg.receive(mux.data_to_send(), 0.0) == [ChannelError((status,), information)]


@pytest.mark.parametrize("end", ["emmg", "mux"])
def test_an_error_is_never_answered_with_an_error(end: str) -> None:
    """Else two ends would never stop."""
    connection = emmg_open() if end == "emmg" else mux_open()
    for bad in (
        raw(M.STREAM_ERROR, *STREAM),
        raw(M.STREAM_ERROR, *OTHER_CLIENT, (P.ERROR_STATUS, 1)),
        raw(M.CHANNEL_ERROR, *CHANNEL),
    ):
        assert len(violations(connection.receive(bad, 0.0))) == 1
    assert connection.receive(raw(M.STREAM_ERROR, *OTHER_STREAM, (P.ERROR_STATUS, 5)), 0.0) == [
        StreamError(5, (5,), ())
    ]
    assert connection.data_to_send() == b""


def test_a_mux_hears_errors_of_its_peer() -> None:
    """Several statuses and texts in one message."""
    mux = mux_open()
    error = ((P.ERROR_STATUS, 1), (P.ERROR_STATUS, 0x8001), (P.ERROR_INFORMATION, b"x"))
    assert mux.receive(raw(M.STREAM_ERROR, *STREAM, *error), 0.0) == [
        StreamError(7, (1, 0x8001), (b"x",))
    ]
    assert mux.stream_state(7) is StreamState.IN_ERROR
    assert mux.receive(raw(M.CHANNEL_ERROR, *CHANNEL, *error), 0.0) == [
        ChannelError((1, 0x8001), (b"x",))
    ]
    assert mux.channel_state is ChannelState.IN_ERROR
    assert mux.receive(raw(M.CHANNEL_TEST, *CHANNEL), 0.0) == []
    assert mux.data_to_send() == b""


def test_an_emmg_believes_an_error_of_any_version_and_ids() -> None:
    """A MUX of another version may not even read our ids."""
    emmg = EmmgConnection(3, 1, 2, 1)
    emmg.open_channel(0.0)
    refusal = raw(M.CHANNEL_ERROR, (P.CLIENT_ID, 0), (P.DATA_CHANNEL_ID, 0), (P.ERROR_STATUS, 2))
    assert emmg.receive(b"\x02" + refusal[1:], 0.0) == [ChannelError((2,), ())]
    assert emmg.channel_state is ChannelState.NOT_OPEN
    assert emmg.next_timeout() is None


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (raw(M.STREAM_CLOSE_RESPONSE, *STREAM), E.INVALID_MESSAGE),
        (raw(M.DATA_PROVISION, *DATA), E.INVALID_MESSAGE),
        (raw(M.CHANNEL_CLOSE, *CHANNEL), E.INVALID_MESSAGE),
        (raw(M.STREAM_BW_ALLOCATION, *OTHER_STREAM), E.UNKNOWN_DATA_STREAM_ID),
        (raw(M.STREAM_STATUS, *OTHER_CLIENT, *SETUP[3:]), E.UNKNOWN_CLIENT_ID),
        (raw(M.CHANNEL_STATUS, *OTHER_CHANNEL[:2], FLAG), E.UNKNOWN_DATA_CHANNEL_ID),
        (raw(M.STREAM_STATUS, *STREAM), E.MISSING_PARAMETER),
        (b"\x02" + raw(M.CHANNEL_STATUS, *CHANNEL, FLAG)[1:], E.UNSUPPORTED_VERSION),
    ],
)
def test_an_emmg_reports_misuse_and_stays_polite(message: bytes, status: ErrorStatus) -> None:
    """Some multiplexers hang up on an unexpected error: only tests are answered with one."""
    emmg = emmg_open()
    assert violations(emmg.receive(message, 0.0)) == [status]
    assert emmg.data_to_send() == b""
    assert emmg.stream_state(7) is StreamState.OPEN


def test_an_emmg_answers_a_test_of_what_it_does_not_know() -> None:
    """A test wants an answer, if only an error."""
    emmg = emmg_open()
    assert violations(emmg.receive(raw(M.STREAM_TEST, *OTHER_STREAM), 0.0)) == [
        E.UNKNOWN_DATA_STREAM_ID
    ]
    assert violations(emmg.receive(raw(M.CHANNEL_TEST, *OTHER_CHANNEL[:2]), 0.0)) == [
        E.UNKNOWN_DATA_CHANNEL_ID
    ]
    assert sent(emmg) == [
        (M.STREAM_ERROR, (E.UNKNOWN_DATA_STREAM_ID,)),
        (M.CHANNEL_ERROR, (E.UNKNOWN_DATA_CHANNEL_ID,)),
    ]
    emmg.open_stream(5, 10, 0, 0.0)
    emmg.data_to_send()
    events = emmg.receive(raw(M.STREAM_TEST, *OTHER_STREAM), 0.0)
    assert violations(events) == [E.INVALID_MESSAGE]
    assert emmg.data_to_send() == b""


def test_the_unknown_is_ignored_and_counted() -> None:
    """Clause 4.4.1: messages of other interfaces, and parameters of later versions."""
    mux = mux_open()
    other = Message(3, 0x0001, ((0x0001, b"\0\1"),)).encode()
    assert mux.receive(other, 0.0) == [PeerSentUnknown(0x0001, 1)]
    extra = Message(
        3,
        M.DATA_PROVISION,
        (*Message.decode(raw(M.DATA_PROVISION, *DATA)).parameters, (0x9000, b"?"), (0x0006, b"")),
    )
    assert mux.receive(extra.encode(), 0.0) == [
        PeerSentUnknown(M.DATA_PROVISION, 2),
        DataProvided(7, 9, (NULL_PACKET,)),
    ]
    assert mux.data_to_send() == b""


pieces = st.one_of(
    st.binary(max_size=60),
    st.builds(
        raw,
        st.sampled_from(MessageType),
        *[
            st.sampled_from([*SETUP, FLAG, *DATA, (P.BANDWIDTH, 5), (P.ERROR_STATUS, 2)])
            for _ in range(6)
        ],
    ),
    st.builds(
        raw,
        st.just(M.STREAM_SETUP),
        *map(st.just, CHANNEL),
        st.tuples(st.just(P.DATA_STREAM_ID), st.integers(0, 9)),
        *map(st.just, SETUP[3:]),
    ),
    *(
        st.just(raw(message_type, *parameters))
        for message_type, parameters in (
            (M.CHANNEL_SETUP, (*CHANNEL, FLAG)),
            (M.CHANNEL_TEST, CHANNEL),
            (M.CHANNEL_STATUS, (*CHANNEL, FLAG)),
            (M.CHANNEL_CLOSE, CHANNEL),
            (M.CHANNEL_ERROR, (*CHANNEL, (P.ERROR_STATUS, 1))),
            (M.STREAM_SETUP, SETUP),
            (M.STREAM_TEST, STREAM),
            (M.STREAM_STATUS, SETUP),
            (M.STREAM_CLOSE_REQUEST, STREAM),
            (M.STREAM_CLOSE_RESPONSE, STREAM),
            (M.STREAM_ERROR, (*STREAM, (P.ERROR_STATUS, 1))),
            (M.STREAM_BW_REQUEST, STREAM),
            (M.STREAM_BW_ALLOCATION, STREAM),
            (M.DATA_PROVISION, DATA),
        )
    ),
)


@given(st.lists(pieces, max_size=40))
def test_a_mux_survives_anything(noise: list[bytes]) -> None:
    """Messages in any order between noise: events only, owner's answers always safe, bounded."""
    mux = MuxConnection(opened_at=0.0)
    heard = 0
    for now, piece in enumerate(noise):
        heard += len(piece)
        events = mux.receive(piece, float(now))
        assert len(events) <= 2 * heard
        for stream_id in (7, 5):
            mux.accept_channel(1)
            mux.accept_stream(stream_id)
            mux.allocate(stream_id, 1)
            mux.confirm_stream_close(stream_id)
        mux.handle_timeout(float(now))
        assert len(mux.data_to_send()) <= 10 * heard + 200
        assert len(mux._reader._pending) < 65_540


@given(st.booleans(), st.lists(pieces, max_size=40))
def test_an_emmg_survives_anything(begun: bool, noise: list[bytes]) -> None:
    """Messages in any order between noise: events only, little said in answer."""
    emmg = emmg_open() if begun else EmmgConnection(3, 1, 2, 1)
    if not begun:
        emmg.open_channel(0.0)
    emmg.data_to_send()
    heard = 0
    for now, piece in enumerate(noise):
        heard += len(piece)
        emmg.receive(piece, float(now))
        emmg.handle_timeout(float(now))
        assert len(emmg.data_to_send()) <= 4 * heard + 200
