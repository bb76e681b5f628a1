"""A recording played for ever: its rate and its seam."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvbwire.ts import (
    NULL_PACKET,
    NULL_PID,
    continuity_counter_of,
    discontinuity_of,
    has_payload,
    pcr_of,
    pid_of,
)
from portcullis.mux.looping import LoopSeam, RateMeter

TICKS_PER_S = 27_000_000
PCR_MODULUS = (1 << 33) * 300


def _packet(
    pid: int, counter: int, *, start: bool = False, pcr: int | None = None, payload: bool = True
) -> bytes:
    field = b""
    if pcr is not None:
        base, extension = divmod(pcr, 300)
        field = b"\x07\x10" + (base << 15 | 0x7E00 | extension).to_bytes(6)
    elif not payload:
        field = b"\x01\x00"
    control = 0x20 * bool(field) | 0x10 * payload
    header = bytes((0x47, start << 6 | pid >> 8, pid & 0xFF, control | counter % 16))
    return (header + field).ljust(188, b"\xff")


@pytest.mark.parametrize("first_pcr", [0, PCR_MODULUS - 5 * TICKS_PER_S // 100])
def test_the_rate_is_read_from_the_pcrs(first_pcr: int) -> None:
    """10,000 packets a second, a PCR every 40 ms, across the wrap of the clock too."""
    meter = RateMeter()
    for at in range(2000):
        ticks = (first_pcr + at * TICKS_PER_S // 10_000) % PCR_MODULUS
        meter.feed([_packet(0x100, at, pcr=ticks) if at % 400 == 0 else NULL_PACKET])
    assert meter.bits_per_s == 10_000 * 188 * 8


def test_a_jump_of_the_clock_and_the_clock_of_another_pid_do_not_count() -> None:
    """Only steps of one PID's clock are measured."""
    meter = RateMeter()
    for at in range(0, 1000, 100):
        jump = 1000 * TICKS_PER_S if at >= 500 else 0
        meter.feed([_packet(0x100, 0, pcr=at * TICKS_PER_S // 10_000 + jump)])
        meter.feed([NULL_PACKET] * 49)
        meter.feed([_packet(0x200, 0, pcr=12345 * at)])
        meter.feed([NULL_PACKET] * 49)
    assert meter.bits_per_s == 10_000 * 188 * 8


def test_a_stream_without_two_pcrs_tells_no_rate() -> None:
    """Then the rate must be configured."""
    meter = RateMeter()
    meter.feed([NULL_PACKET, _packet(0x100, 0, pcr=5), NULL_PACKET])
    assert meter.bits_per_s is None


def test_the_first_pass_is_not_changed() -> None:
    """Not even its faults."""
    seam = LoopSeam()
    packets = [_packet(0x100, 5), _packet(0x100, 9, pcr=0), NULL_PACKET]
    assert [seam.process(each) for each in packets] == packets


_PIDS = st.sampled_from([0x100, 0x101, NULL_PID])


@given(
    recording=st.lists(st.tuples(_PIDS, st.booleans(), st.booleans(), st.booleans()), max_size=40),
    first=st.integers(0, 15),
)
def test_counters_go_on_over_the_seam(
    recording: list[tuple[int, bool, bool, bool]], first: int
) -> None:
    """Whatever the recording holds: each payload packet counts one on, others stand still."""
    counters = dict.fromkeys((0x100, 0x101, NULL_PID), first)
    packets = []
    for pid, start, clock, payload in recording:
        counters[pid] += payload
        packets.append(
            _packet(pid, counters[pid], start=start, pcr=77 if clock else None, payload=payload)
        )
    seam = LoopSeam()
    output = []
    for _ in range(3):
        output += [seam.process(each) for each in packets]
        seam.restart()
    last: dict[int, int] = {}
    for each in output:
        pid = pid_of(each)
        if pid == NULL_PID:
            continue
        if pid in last:
            assert continuity_counter_of(each) == (last[pid] + has_payload(each)) % 16
        last[pid] = continuity_counter_of(each)


def test_the_first_pcr_after_the_seam_announces_the_jump() -> None:
    """Once on each PID that carries a clock; the clock's own bits stay."""
    recording = [_packet(pid, 0, start=True, pcr=pid) for pid in (0x100, 0x101, 0x100)]
    seam = LoopSeam()
    for each in recording:
        assert not discontinuity_of(seam.process(each))
    seam.restart()
    again = [seam.process(each) for each in recording]
    assert [discontinuity_of(each) for each in again] == [True, True, False]
    assert [pcr_of(each) for each in again] == [0x100, 0x101, 0x100]


def test_what_continues_nothing_is_left_out_after_the_seam() -> None:
    """A recording that begins in the middle of a section must not complete the one cut off."""
    recording = [_packet(0x100, 3), _packet(0x100, 4, start=True), _packet(0x100, 5)]
    seam = LoopSeam()
    for each in recording:
        seam.process(each)
    seam.restart()
    again = [seam.process(each) for each in recording]
    assert again[0] == NULL_PACKET
    assert [continuity_counter_of(each) for each in again[1:]] == [6, 7]
