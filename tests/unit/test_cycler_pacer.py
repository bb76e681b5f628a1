"""The token bucket."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portcullis.cycler.pacer import MAX_PACKETS_PER_MESSAGE, Pacer

PACKET_BITS = 188 * 8


def test_the_rate_is_that_of_the_packets() -> None:
    """1504 kbit/s are a thousand packets a second."""
    pacer = Pacer(1504, 0.0)
    sent = 0
    for tick in range(1, 1001):
        packets = pacer.available(tick / 1000)
        pacer.spend(packets)
        sent += packets
    assert sent == pytest.approx(1000, abs=1)


def test_a_silence_saves_up_no_more_than_a_burst() -> None:
    """One message and 20 ms; whole messages first, and the rest with the next."""
    pacer = Pacer(1504, 0.0)
    assert pacer.available(3600.0) == 21
    pacer.spend(21)
    assert pacer.available(3600.0) == MAX_PACKETS_PER_MESSAGE + 20 - 21


def test_another_bandwidth_is_obeyed_at_once() -> None:
    """Up and down; at 0 nothing leaves, tokens saved or not."""
    pacer = Pacer(1504, 0.0)
    pacer.available(10.0)
    pacer.set_rate(0, 10.0)
    assert pacer.available(20.0) == 0
    assert pacer.delay(1) == inf
    pacer.set_rate(3008, 20.0)
    assert pacer.available(20.001) == 2
    pacer.spend(2)
    assert pacer.delay(1) == pytest.approx(0.0005)


@given(
    st.lists(st.tuples(st.sampled_from([0, 100, 1000, 65535]), st.floats(0, 2)), max_size=50),
)
def test_no_window_carries_more_than_the_rate_and_one_burst(
    steps: list[tuple[int, float]],
) -> None:
    """However the bandwidth changes."""
    pacer, now, sent, earned = Pacer(1000, 0.0), 0.0, 0, 0.0
    rate, deepest = 1000, 0.0
    for kbit_s, pause in steps:
        pacer.set_rate(kbit_s, now)
        rate = kbit_s
        now += pause
        packets = pacer.available(now)
        pacer.spend(packets)
        sent += packets
        earned += pause * rate * 1000 / PACKET_BITS
        deepest = max(deepest, MAX_PACKETS_PER_MESSAGE + rate * 20 / PACKET_BITS)
        assert packets <= MAX_PACKETS_PER_MESSAGE + rate * 20 / PACKET_BITS + 1e-6
    assert sent <= earned + 1e-3
