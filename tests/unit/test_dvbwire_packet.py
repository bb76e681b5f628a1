"""Reading and rewriting packet headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvbwire.errors import DvbWireError
from dvbwire.ts import (
    NULL_PACKET,
    NULL_PID,
    PACKET_SIZE,
    TsError,
    continuity_counter_of,
    discontinuity_of,
    has_payload,
    payload_of,
    payload_unit_start_of,
    pcr_of,
    pid_of,
    with_pid_and_counter,
)

# 47 sync, 41 00 unit start and PID 0x100, 3A both fields and counter 10; adaptation field: 07 long,
# 90 discontinuity and PCR, then base 0x123456789 in 33 bits, 6 reserved ones, extension 0x12B.
WITH_PCR = bytes.fromhex("4741003a0790") + (
    (0x123456789 << 15 | 0x3F << 9 | 0x12B).to_bytes(6) + bytes(176)
)


def test_the_null_packet_is_what_the_standard_says() -> None:
    """PID 0x1FFF, payload only, counter 0."""
    assert len(NULL_PACKET) == PACKET_SIZE
    assert pid_of(NULL_PACKET) == NULL_PID
    assert has_payload(NULL_PACKET)
    assert not payload_unit_start_of(NULL_PACKET)
    assert pcr_of(NULL_PACKET) is None
    assert not discontinuity_of(NULL_PACKET)


def test_a_packet_with_a_clock_reads_as_built() -> None:
    """PCR is base times 300 plus extension, in ticks of 27 MHz."""
    assert len(WITH_PCR) == PACKET_SIZE
    assert pcr_of(WITH_PCR) == 0x123456789 * 300 + 0x12B
    assert discontinuity_of(WITH_PCR)
    assert payload_unit_start_of(WITH_PCR)
    assert continuity_counter_of(WITH_PCR) == 10
    assert pid_of(WITH_PCR) == 0x100
    assert payload_of(WITH_PCR) == bytes(176)


def test_an_adaptation_field_alone_leaves_no_payload() -> None:
    """adaptation_field_control 10: the packet is all adaptation field."""
    packet = bytes.fromhex("4701002ab700") + b"\xff" * 182
    assert not has_payload(packet)
    assert payload_of(packet) == b""
    assert pcr_of(packet) is None


def test_an_adaptation_field_longer_than_the_packet_yields_nothing() -> None:
    """Noise in the length must not index past the end."""
    assert payload_of(bytes.fromhex("4701003aff10") + bytes(182)) == b""


@given(
    st.binary(min_size=187, max_size=187),
    st.integers(0, NULL_PID),
    st.integers(0, 15),
)
def test_a_rewritten_packet_differs_only_in_pid_and_counter(
    rest: bytes, pid: int, counter: int
) -> None:
    """Flags, scrambling, adaptation field and payload stay."""
    packet = b"\x47" + rest
    rewritten = with_pid_and_counter(packet, pid, counter)
    assert (pid_of(rewritten), continuity_counter_of(rewritten)) == (pid, counter)
    back = with_pid_and_counter(rewritten, pid_of(packet), continuity_counter_of(packet))
    assert back == packet


@pytest.mark.parametrize(
    ("packet", "pid", "counter"),
    [
        (NULL_PACKET, NULL_PID + 1, 0),
        (NULL_PACKET, -1, 0),
        (NULL_PACKET, 0, 16),
        (NULL_PACKET[1:], 0, 0),
        (b"\x46" + NULL_PACKET[1:], 0, 0),
    ],
)
def test_what_is_no_packet_is_refused(packet: bytes, pid: int, counter: int) -> None:
    """A caller's mistake is a typed error."""
    with pytest.raises(TsError) as caught:
        with_pid_and_counter(packet, pid, counter)
    assert isinstance(caught.value, DvbWireError)


@given(st.binary(min_size=188, max_size=188))
def test_readers_take_any_188_bytes(packet: bytes) -> None:
    """No content makes a reader raise."""
    pcr = pcr_of(packet)
    assert pcr is None or 0 <= pcr < (1 << 33) * 300 + 512
    assert len(payload_of(packet)) <= 184
    assert isinstance(discontinuity_of(packet), bool)
