"""Both ends back to back: a whole session, cut anywhere."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvbwire.simulcrypt import (
    BandwidthAllocated,
    BandwidthRequested,
    ChannelClosed,
    ChannelError,
    ChannelOpened,
    ChannelSetup,
    ChannelState,
    DataProvided,
    EmmgConnection,
    ErrorStatus,
    Event,
    LocalProtocolError,
    MuxConnection,
    StreamClosed,
    StreamCloseRequested,
    StreamError,
    StreamOpened,
    StreamSetup,
    StreamState,
    TestAnswered,
    decode_udp_provision,
)
from dvbwire.ts import NULL_PACKET

CLIENT_ID = 0xFFF00001
SECTION = b"\x82\x70\x03abc"


class Wire:
    """Carries bytes between two ends in pieces of the given sizes, over and over."""

    def __init__(self, sizes: list[int]) -> None:
        self._sizes = sizes
        self._turn = 0

    def carry(self, data: bytes, receiver: EmmgConnection | MuxConnection) -> list[Event]:
        """Deliver `data`; return all the receiver makes of it."""
        events: list[Event] = []
        while data:
            size = self._sizes[self._turn % len(self._sizes)]
            self._turn += 1
            events += receiver.receive(data[:size], 0.0)
            data = data[size:]
        return events


def opened(version: int = 3, flag: int = 1) -> tuple[EmmgConnection, MuxConnection]:
    """Make both ends with an open channel and stream 7 open."""
    emmg = EmmgConnection(version, CLIENT_ID, 4, flag)
    mux = MuxConnection()
    emmg.open_channel(0.0)
    mux.receive(emmg.data_to_send(), 0.0)
    assert mux.accept_channel(flag)
    emmg.receive(mux.data_to_send(), 0.0)
    emmg.open_stream(7, 9, 0, 0.0)
    mux.receive(emmg.data_to_send(), 0.0)
    assert mux.accept_stream(7)
    assert emmg.receive(mux.data_to_send(), 0.0) == [StreamOpened(7)]
    return emmg, mux


@given(
    st.sampled_from([2, 3, 5]),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_a_session_goes_through_whatever_the_cut(
    version: int, up: list[int], down: list[int]
) -> None:
    """Set-up, bandwidth, provision, close: the same events however TCP cuts."""
    emmg, mux = EmmgConnection(version, CLIENT_ID, 4, 1), MuxConnection()
    to_mux, to_emmg = Wire(up), Wire(down)
    emmg.open_channel(0.0)
    assert to_mux.carry(emmg.data_to_send(), mux) == [ChannelSetup(version, CLIENT_ID, 4, 1)]
    assert mux.accept_channel(1)
    assert to_emmg.carry(mux.data_to_send(), emmg) == [ChannelOpened(1)]
    emmg.open_stream(7, 9, 0, 0.0)
    emmg.open_stream(8, 10, 1, 0.0)
    assert to_mux.carry(emmg.data_to_send(), mux) == [StreamSetup(7, 9, 0), StreamSetup(8, 10, 1)]
    assert mux.accept_stream(7)
    assert mux.refuse_stream(8, ErrorStatus.TOO_MANY_STREAMS_ON_CHANNEL)
    assert to_emmg.carry(mux.data_to_send(), emmg) == [
        StreamOpened(7),
        StreamError(8, (ErrorStatus.TOO_MANY_STREAMS_ON_CHANNEL,), ()),
    ]
    emmg.request_bandwidth(7, 1000, 0.0)
    assert to_mux.carry(emmg.data_to_send(), mux) == [BandwidthRequested(7, 1000)]
    assert mux.allocate(7, 500)
    assert to_emmg.carry(mux.data_to_send(), emmg) == [BandwidthAllocated(7, 500)]
    data = emmg.provide(7, [NULL_PACKET, NULL_PACKET * 2]) + emmg.provide(7, [NULL_PACKET])
    assert to_mux.carry(data, mux) == [
        DataProvided(7, 9, (NULL_PACKET, NULL_PACKET * 2)),
        DataProvided(7, 9, (NULL_PACKET,)),
    ]
    emmg.close_stream(7, 0.0)
    assert to_mux.carry(emmg.data_to_send(), mux) == [StreamCloseRequested(7)]
    assert mux.confirm_stream_close(7)
    assert to_emmg.carry(mux.data_to_send(), emmg) == [StreamClosed(7)]
    emmg.close_channel()
    assert to_mux.carry(emmg.data_to_send(), mux) == [ChannelClosed()]
    assert emmg.channel_state is mux.channel_state is ChannelState.CLOSED
    assert mux.data_to_send() == b""
    assert emmg.next_timeout() is None
    assert mux.next_timeout() is None


def test_a_flag_answered_otherwise_is_obeyed() -> None:
    """The MUX has the last word on sections or packets."""
    emmg, mux = EmmgConnection(3, CLIENT_ID, 4, 1), MuxConnection()
    emmg.open_channel(0.0)
    mux.receive(emmg.data_to_send(), 0.0)
    mux.accept_channel(0)
    assert emmg.receive(mux.data_to_send(), 0.0) == [ChannelOpened(0)]
    emmg.open_stream(7, 9, 0, 0.0)
    mux.receive(emmg.data_to_send(), 0.0)
    mux.accept_stream(7)
    emmg.receive(mux.data_to_send(), 0.0)
    with pytest.raises(LocalProtocolError):
        emmg.provide(7, [NULL_PACKET])
    assert mux.receive(emmg.provide(7, [SECTION]), 0.0) == [DataProvided(7, 9, (SECTION,))]


def test_a_section_is_never_sent_on_a_packet_channel() -> None:
    """There is a multiplexer that never comes back from it."""
    emmg, _ = opened(flag=1)
    with pytest.raises(LocalProtocolError):
        emmg.provide(7, [NULL_PACKET, SECTION])
    with pytest.raises(LocalProtocolError):
        emmg.provide_udp(7, [SECTION])


@pytest.mark.parametrize("count", [1, 7])
def test_what_comes_before_packets_makes_them_a_message(count: int) -> None:
    """The same as if it had been provided, over TCP and UDP."""
    emmg, mux = opened(flag=1)
    packets = NULL_PACKET * count
    message = emmg.before_packets(7, packets, count) + packets
    assert message == emmg.provide(7, [packets])
    assert mux.receive(message, 0.0) == [DataProvided(7, 9, (packets,))]
    datagram = emmg.before_packets_udp(7, memoryview(packets), count) + packets
    assert datagram == emmg.provide_udp(7, [packets])


@pytest.mark.parametrize("packets", [b"", NULL_PACKET[:-1], NULL_PACKET + SECTION.ljust(188)])
def test_only_packets_are_cut_into_messages(packets: bytes) -> None:
    """Nothing else, not for a channel of sections, and not more than fit."""
    for flag, data, most in ((1, packets, 7), (0, NULL_PACKET, 7), (1, NULL_PACKET, 349)):
        emmg, _ = opened(flag=flag)
        with pytest.raises(LocalProtocolError):
            emmg.before_packets(7, data, most)
        with pytest.raises(LocalProtocolError):
            emmg.before_packets_udp(7, data, most)


def test_the_same_datagrams_go_over_udp() -> None:
    """Without channel and stream, named by client_id and data_id."""
    emmg, _ = opened()
    read = decode_udp_provision(emmg.provide_udp(7, [NULL_PACKET]))
    assert (read.client_id, read.data_id, read.data_channel_id, read.data_stream_id) == (
        CLIENT_ID,
        9,
        None,
        None,
    )
    assert read.datagrams == (NULL_PACKET,)


def test_a_refused_channel_may_be_asked_for_again() -> None:
    """A standby waits so until the ids are free."""
    emmg, mux = EmmgConnection(3, CLIENT_ID, 4, 1), MuxConnection()
    emmg.open_channel(0.0)
    mux.receive(emmg.data_to_send(), 0.0)
    assert mux.refuse_channel(ErrorStatus.CLIENT_ID_IN_USE, b"wait")
    assert emmg.receive(mux.data_to_send(), 0.0) == [
        ChannelError((ErrorStatus.CLIENT_ID_IN_USE,), (b"wait",))
    ]
    assert emmg.next_timeout() is None
    emmg.open_channel(5.0)
    assert mux.receive(emmg.data_to_send(), 5.0) == [ChannelSetup(3, CLIENT_ID, 4, 1)]
    assert mux.accept_channel(1)
    assert emmg.receive(mux.data_to_send(), 5.0) == [ChannelOpened(1)]


def test_a_refused_stream_may_be_asked_for_again() -> None:
    """The channel stays open meanwhile."""
    emmg, mux = opened()
    emmg.open_stream(8, 10, 0, 0.0)
    mux.receive(emmg.data_to_send(), 0.0)
    assert mux.refuse_stream(8, ErrorStatus.DATA_ID_IN_USE)
    assert emmg.receive(mux.data_to_send(), 0.0) == [
        StreamError(8, (ErrorStatus.DATA_ID_IN_USE,), ())
    ]
    emmg.open_stream(8, 11, 0, 0.0)
    assert mux.receive(emmg.data_to_send(), 0.0) == [StreamSetup(8, 11, 0)]


def test_bandwidth_may_be_changed_unasked_and_left_unsaid() -> None:
    """An allocation without a value means that it is not known."""
    emmg, mux = opened()
    assert mux.allocate(7, 300)
    assert mux.allocate(7, None)
    assert emmg.receive(mux.data_to_send(), 0.0) == [
        BandwidthAllocated(7, 300),
        BandwidthAllocated(7, None),
    ]
    emmg.request_bandwidth(7, None, 0.0)
    assert mux.receive(emmg.data_to_send(), 0.0) == [BandwidthRequested(7, None)]


def test_an_open_stream_that_fails_must_be_closed_first() -> None:
    """stream_error of an open stream: no more data, close, set up anew."""
    emmg, mux = opened()
    crossing = emmg.provide(7, [NULL_PACKET])
    assert mux.refuse_stream(7, ErrorStatus.EXCEEDED_BANDWIDTH)
    assert mux.receive(crossing, 0.0) == []
    assert emmg.receive(mux.data_to_send(), 0.0) == [
        StreamError(7, (ErrorStatus.EXCEEDED_BANDWIDTH,), ())
    ]
    assert emmg.stream_state(7) is StreamState.IN_ERROR
    with pytest.raises(LocalProtocolError):
        emmg.provide(7, [NULL_PACKET])
    emmg.close_stream(7, 0.0)
    assert mux.receive(emmg.data_to_send(), 0.0) == [StreamCloseRequested(7)]
    mux.confirm_stream_close(7)
    assert emmg.receive(mux.data_to_send(), 0.0) == [StreamClosed(7)]
    emmg.open_stream(7, 9, 0, 0.0)
    assert mux.receive(emmg.data_to_send(), 0.0) == [StreamSetup(7, 9, 0)]


def test_an_open_channel_that_fails_is_lost() -> None:
    """Nothing more may be sent but the close; what crosses is ignored at both ends."""
    emmg, mux = opened()
    emmg.request_bandwidth(7, 100, 0.0)
    crossing_up = emmg.data_to_send()
    assert mux.allocate(7, 100)
    assert mux.refuse_channel(ErrorStatus.UNRECOVERABLE_ERROR)
    down = mux.data_to_send()
    assert mux.receive(crossing_up, 0.0) == []
    assert emmg.receive(down, 0.0) == [
        BandwidthAllocated(7, 100),
        ChannelError((ErrorStatus.UNRECOVERABLE_ERROR,), ()),
    ]
    for forbidden in (
        lambda: emmg.provide(7, [NULL_PACKET]),
        lambda: emmg.open_stream(8, 1, 0, 0.0),
        lambda: emmg.close_stream(7, 0.0),
        lambda: emmg.open_channel(0.0),
    ):
        with pytest.raises(LocalProtocolError):
            forbidden()
    emmg.close_channel()
    assert mux.receive(emmg.data_to_send(), 0.0) == [ChannelClosed()]


def test_what_crosses_a_close_is_taken_calmly() -> None:
    """The MUX tests, allocates and fails a stream whose close is already under way."""
    emmg, mux = opened()
    mux.handle_timeout(10.0)
    mux.allocate(7, 200)
    mux.refuse_stream(7, ErrorStatus.UNKNOWN_ERROR)
    emmg.close_stream(7, 0.0)
    up = emmg.data_to_send()
    assert emmg.receive(mux.data_to_send(), 0.0) == [
        StreamError(7, (ErrorStatus.UNKNOWN_ERROR,), ())
    ]
    up += emmg.data_to_send()
    assert mux.receive(up, 0.0) == [StreamCloseRequested(7), TestAnswered(None)]
    assert mux.confirm_stream_close(7)
    assert emmg.receive(mux.data_to_send(), 0.0) == [StreamClosed(7)]


def test_after_the_close_nothing_is_heard() -> None:
    """A closed channel ignores whatever TCP still delivers."""
    emmg, mux = opened()
    emmg.close_channel()
    mux.receive(emmg.data_to_send(), 0.0)
    again = EmmgConnection(3, CLIENT_ID, 4, 1)
    again.open_channel(0.0)
    assert mux.receive(again.data_to_send(), 0.0) == []
    assert mux.data_to_send() == b""


@pytest.mark.parametrize(
    "call",
    [
        lambda emmg: emmg.open_stream(1, 1, 0, 0.0),
        lambda emmg: emmg.request_bandwidth(1, 1, 0.0),
        lambda emmg: emmg.provide(1, [NULL_PACKET]),
        lambda emmg: emmg.provide_udp(1, [NULL_PACKET]),
        lambda emmg: emmg.close_stream(1, 0.0),
        lambda emmg: emmg.close_channel(),
    ],
)
def test_nothing_but_a_set_up_may_come_first(call: Callable[[EmmgConnection], object]) -> None:
    """Any other call on a fresh connection is this end's mistake and queues nothing."""
    emmg = EmmgConnection(3, CLIENT_ID, 4, 1)
    with pytest.raises(LocalProtocolError):
        call(emmg)
    assert emmg.data_to_send() == b""


def test_values_out_of_range_are_this_ends_mistake() -> None:
    """Nothing is queued and no state moves."""
    emmg, mux = opened()
    with pytest.raises(LocalProtocolError):
        EmmgConnection(4, CLIENT_ID, 4, 1)
    with pytest.raises(LocalProtocolError):
        EmmgConnection(3, CLIENT_ID, 4, 2).open_channel(0.0)
    with pytest.raises(LocalProtocolError):
        emmg.open_stream(8, 65_536, 0, 0.0)
    with pytest.raises(LocalProtocolError):
        emmg.open_stream(65_536, 8, 0, 0.0)
    with pytest.raises(LocalProtocolError):
        emmg.request_bandwidth(7, 65_536, 0.0)
    with pytest.raises(LocalProtocolError):
        emmg.provide(7, [])
    with pytest.raises(LocalProtocolError):
        emmg.provide(7, [NULL_PACKET] * 342)
    with pytest.raises(LocalProtocolError):
        emmg.provide(7, [NULL_PACKET * 349])
    with pytest.raises(LocalProtocolError):
        mux.allocate(7, 65_536)
    assert emmg.stream_state(8) is StreamState.NOT_OPEN
    assert emmg.data_to_send() == mux.data_to_send() == b""


def test_answers_the_peer_has_overtaken_are_dropped() -> None:
    """A MUX whose peer has closed meanwhile says so with False and queues nothing."""
    mux = MuxConnection()
    answers: tuple[Callable[[], bool], ...] = (
        lambda: mux.accept_channel(1),
        lambda: mux.refuse_channel(1),
        lambda: mux.accept_stream(7),
        lambda: mux.refuse_stream(7, 1),
        lambda: mux.allocate(7, 1),
        lambda: mux.confirm_stream_close(7),
    )
    assert not any(answer() for answer in answers)
    emmg, mux = opened()
    emmg.open_stream(8, 1, 0, 0.0)
    emmg.request_bandwidth(7, 1, 0.0)
    emmg.close_channel()
    assert len(mux.receive(emmg.data_to_send(), 0.0)) == 3
    assert mux.accept_stream(8) is False
    assert mux.allocate(7, 1) is False
    assert mux.data_to_send() == b""
