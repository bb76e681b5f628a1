"""Silence: tests, answers, time-outs, by a clock wound by hand."""

from dvbwire.simulcrypt import (
    BandwidthAllocated,
    ChannelOpened,
    EmmgConnection,
    MessageType,
    MuxConnection,
    StreamClosed,
    StreamOpened,
    StreamState,
    TestAnswered,
    TimedOut,
)


def connected() -> tuple[EmmgConnection, MuxConnection]:
    """Make both ends with the channel opened at time 0; tests at both after 10 and 8 seconds."""
    emmg = EmmgConnection(3, 1, 1, 1, response_timeout_s=5.0, test_after_s=10.0)
    mux = MuxConnection(response_timeout_s=5.0, test_after_s=8.0, opened_at=0.0)
    emmg.open_channel(0.0)
    mux.receive(emmg.data_to_send(), 0.0)
    mux.accept_channel(1)
    assert emmg.receive(mux.data_to_send(), 0.0) == [ChannelOpened(1)]
    return emmg, mux


def with_stream() -> tuple[EmmgConnection, MuxConnection]:
    """Make both ends with stream 7 open at time 0."""
    emmg, mux = connected()
    emmg.open_stream(7, 9, 0, 0.0)
    mux.receive(emmg.data_to_send(), 0.0)
    mux.accept_stream(7)
    assert emmg.receive(mux.data_to_send(), 0.0) == [StreamOpened(7)]
    return emmg, mux


def test_a_channel_setup_unanswered_times_out() -> None:
    """Once, and then nothing more is awaited."""
    emmg = EmmgConnection(3, 1, 1, 1, setup_timeout_s=2.5)
    assert emmg.next_timeout() is None
    emmg.open_channel(100.0)
    assert emmg.next_timeout() == 102.5
    assert emmg.handle_timeout(102.4) == []
    assert emmg.handle_timeout(102.5) == [TimedOut(MessageType.CHANNEL_STATUS, None)]
    assert emmg.next_timeout() is None
    assert emmg.handle_timeout(200.0) == []


def test_a_peer_that_never_asks_for_a_channel_times_out() -> None:
    """A MUX does not keep mute connections."""
    mux = MuxConnection(response_timeout_s=5.0, opened_at=50.0)
    assert mux.next_timeout() == 55.0
    assert mux.handle_timeout(55.0) == [TimedOut(MessageType.CHANNEL_SETUP, None)]
    assert MuxConnection().next_timeout() is None


def test_every_answer_has_its_own_time_out() -> None:
    """Set-up, bandwidth and close of streams each await theirs."""
    emmg, mux = with_stream()
    emmg.open_stream(8, 10, 0, 1.0)
    emmg.request_bandwidth(7, 100, 2.0)
    assert emmg.next_timeout() == 6.0
    assert emmg.handle_timeout(6.0) == [TimedOut(MessageType.STREAM_STATUS, 8)]
    assert emmg.handle_timeout(7.0) == [TimedOut(MessageType.STREAM_BW_ALLOCATION, 7)]
    emmg.close_stream(8, 7.0)
    assert emmg.stream_state(8) is StreamState.CLOSING
    mux.receive(emmg.data_to_send(), 7.0)
    assert emmg.handle_timeout(9.5) == []
    mux.confirm_stream_close(8)
    assert emmg.receive(mux.data_to_send(), 9.5) == [StreamClosed(8)]
    assert emmg.next_timeout() == 19.5


def test_a_close_unanswered_times_out() -> None:
    """What else the stream awaited is forgotten with the close."""
    emmg, _ = with_stream()
    emmg.request_bandwidth(7, 100, 0.0)
    emmg.close_stream(7, 1.0)
    assert emmg.handle_timeout(6.0) == [TimedOut(MessageType.STREAM_CLOSE_RESPONSE, 7)]


def test_an_answer_in_time_ends_the_waiting() -> None:
    """Only the next test is then ahead."""
    emmg, mux = with_stream()
    emmg.request_bandwidth(7, 100, 1.0)
    mux.receive(emmg.data_to_send(), 1.0)
    mux.allocate(7, 100)
    assert emmg.receive(mux.data_to_send(), 2.0) == [BandwidthAllocated(7, 100)]
    assert emmg.next_timeout() == 12.0


def test_silence_is_probed_and_answered() -> None:
    """After test_after_s the channel and each open stream are tested, and answer by themselves."""
    emmg, mux = with_stream()
    assert emmg.next_timeout() == 10.0
    assert emmg.handle_timeout(10.0) == []
    tests = emmg.data_to_send()
    assert mux.receive(tests, 10.0) == []
    answers = [TestAnswered(None), TestAnswered(7)]
    assert emmg.receive(mux.data_to_send(), 11.0) == answers
    assert emmg.next_timeout() == 21.0
    assert mux.next_timeout() == 18.0
    assert mux.handle_timeout(18.0) == []
    assert emmg.receive(mux.data_to_send(), 18.0) == []
    assert mux.receive(emmg.data_to_send(), 18.5) == answers


def test_a_status_nobody_asked_for_is_nothing() -> None:
    """Some peers send one now and then."""
    emmg, mux = with_stream()
    mux._send_channel_status()
    mux._send_stream_status(7)
    assert emmg.receive(mux.data_to_send(), 1.0) == []


def test_a_test_unanswered_times_out() -> None:
    """For the channel and for the stream; testing goes on until the owner closes."""
    emmg, _ = with_stream()
    emmg.handle_timeout(10.0)
    assert emmg.next_timeout() == 15.0
    assert emmg.handle_timeout(15.0) == [
        TimedOut(MessageType.CHANNEL_STATUS, None),
        TimedOut(MessageType.STREAM_STATUS, 7),
    ]
    assert emmg.next_timeout() == 20.0


def test_anything_heard_puts_the_next_test_off() -> None:
    """A busy EMMG is not tested by the MUX."""
    emmg, mux = with_stream()
    emmg.request_bandwidth(7, None, 7.0)
    mux.receive(emmg.data_to_send(), 7.0)
    assert mux.next_timeout() == 15.0


def test_a_late_handler_reports_all_that_is_due() -> None:
    """Called long after the moment, it still reports each time-out once."""
    emmg, _ = with_stream()
    emmg.open_stream(8, 10, 0, 1.0)
    emmg.request_bandwidth(7, 100, 2.0)
    assert emmg.handle_timeout(9.0) == [
        TimedOut(MessageType.STREAM_STATUS, 8),
        TimedOut(MessageType.STREAM_BW_ALLOCATION, 7),
    ]
