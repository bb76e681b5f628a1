"""Sections into packets and back, through loss, duplication and damage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvbwire.ts import (
    PACKET_SIZE,
    SectionReassembler,
    TsError,
    continuity_counter_of,
    packetize_section,
    payload_unit_start_of,
    pid_of,
    with_pid_and_counter,
)

PID = 0x123


def a_section(body: bytes, table_id: int = 0x82) -> bytes:
    """Make a short-form section around `body`."""
    return bytes((table_id,)) + (0x7000 | len(body)).to_bytes(2) + body


def packets_of(payload: bytes, starts: dict[int, int], counter: int = 0) -> list[bytes]:
    """Lay `payload` into packets; `starts` gives the pointer_field of those that have one."""
    packets = []
    number = 0
    while payload:
        pointer = bytes((starts[number],)) if number in starts else b""
        room = 184 - len(pointer)
        chunk = (pointer + payload[:room]).ljust(184, b"\xff")
        payload = payload[room:]
        flags = 0x40 if pointer else 0
        header = bytes((0x47, flags | PID >> 8, PID & 0xFF, 0x10 | (counter + number) & 15))
        packets.append(header + chunk)
        number += 1
    return packets


sections = st.builds(
    a_section,
    st.binary(max_size=600) | st.binary(min_size=170, max_size=190),
    st.integers(0, 0xFE),
)


@given(sections, st.integers(0, 0x1FFF), st.integers(0, 15))
def test_a_section_survives_its_packets(section: bytes, pid: int, counter: int) -> None:
    """The counter counts on, only the first packet starts a unit, and the bytes come back."""
    packets = packetize_section(section, pid, counter)
    assert all(len(packet) == PACKET_SIZE and pid_of(packet) == pid for packet in packets)
    assert [continuity_counter_of(packet) for packet in packets] == [
        (counter + number) % 16 for number in range(len(packets))
    ]
    assert [payload_unit_start_of(packet) for packet in packets] == [
        number == 0 for number in range(len(packets))
    ]
    reassembler = SectionReassembler()
    assert [found for packet in packets for found in reassembler.push(packet)] == [section]
    assert (reassembler.discontinuities, reassembler.malformed) == (0, 0)


@pytest.mark.parametrize(("size", "packets"), [(3, 1), (183, 1), (184, 2), (367, 2), (4096, 23)])
def test_as_few_packets_as_can_be(size: int, packets: int) -> None:
    """Up to 183 bytes fit beside the pointer_field; every further packet takes 184."""
    assert len(packetize_section(a_section(bytes(size - 3)), PID)) == packets


@pytest.mark.parametrize(
    "section",
    [b"", b"\x82\x70", a_section(b"ab") + b"\xff", a_section(b"ab")[:-1], bytes(4097)],
)
def test_what_is_no_section_is_not_packetized(section: bytes) -> None:
    """Its length field must agree with its size."""
    with pytest.raises(TsError):
        packetize_section(section, PID)


def test_a_pid_of_14_bits_is_refused() -> None:
    """PIDs have 13 bits."""
    with pytest.raises(TsError):
        packetize_section(a_section(b""), 0x2000)


def test_sections_may_share_and_span_packets() -> None:
    """Two in the first packet, a third across both, a fourth after it, then stuffing."""
    whole = [a_section(bytes([i]) * size) for i, size in enumerate((20, 60, 150, 30), start=1)]
    stream = b"".join(whole)
    in_first = 183
    spill = sum(map(len, whole[:3])) - in_first
    packets = packets_of(stream, {0: 0, 1: spill})
    reassembler = SectionReassembler()
    assert reassembler.push(packets[0]) == whole[:2]
    assert reassembler.push(packets[1]) == whole[2:]
    assert reassembler.malformed == 0


def test_a_header_cut_between_packets_is_put_together() -> None:
    """Two bytes of the second section's header end the first packet."""
    first, second = a_section(bytes(178)), a_section(b"second section")
    packets = packets_of(first + second, {0: 0, 1: len(second) - 2})
    reassembler = SectionReassembler()
    assert [reassembler.push(packet) for packet in packets] == [[first], [second]]


def test_listening_begins_at_the_next_unit_start() -> None:
    """The tail of a section whose head was missed is skipped without complaint."""
    long_one, short_one = a_section(bytes(300)), a_section(b"x")
    reassembler = SectionReassembler()
    assert reassembler.push(packetize_section(long_one, PID, 0)[1]) == []
    assert reassembler.push(packetize_section(short_one, PID, 2)[0]) == [short_one]
    assert (reassembler.discontinuities, reassembler.malformed) == (0, 0)


def test_a_duplicate_packet_is_heard_once() -> None:
    """Clause 2.4.3.3 allows a packet to be sent twice."""
    section = a_section(bytes(200))
    first, last = packetize_section(section, PID, 7)
    reassembler = SectionReassembler()
    found = [reassembler.push(packet) for packet in (first, first, last, last)]
    assert found == [[], [], [section], []]
    assert reassembler.discontinuities == 0


def test_a_gap_drops_the_section_begun_and_is_counted() -> None:
    """Half a section and half another never become one."""
    section = a_section(bytes(500))
    packets = packetize_section(section, PID, 0)
    after = packetize_section(section, PID, len(packets))
    reassembler = SectionReassembler()
    found = [
        whole for packet in (packets[0], packets[2], *after) for whole in reassembler.push(packet)
    ]
    assert found == [section]
    assert reassembler.discontinuities == 1


def test_an_announced_discontinuity_is_not_counted() -> None:
    """The indicator in the adaptation field says the counter may jump."""
    section = a_section(bytes(100))
    payload = (b"\x00" + section).ljust(182, b"\xff")
    announced = bytes((0x47, 0x40 | PID >> 8, PID & 0xFF, 0x39, 1, 0x80)) + payload
    reassembler = SectionReassembler()
    assert reassembler.push(packetize_section(section, PID, 3)[0]) == [section]
    assert reassembler.push(announced) == [section]
    assert reassembler.discontinuities == 0


def test_packets_without_payload_do_not_count() -> None:
    """An adaptation field alone leaves counter and section alone."""
    section = a_section(bytes(200))
    first, last = packetize_section(section, PID, 0)
    bare = bytes((0x47, PID >> 8, PID & 0xFF, 0x20, 183, 0)) + b"\xff" * 182
    reassembler = SectionReassembler()
    assert [reassembler.push(packet) for packet in (first, bare, last)] == [[], [], [section]]
    assert (reassembler.discontinuities, reassembler.malformed) == (0, 0)


def test_damaged_and_scrambled_packets_are_counted_and_skipped() -> None:
    """Transport error, scrambling, a lost sync byte, a wrong size, a pointer beyond the packet."""
    section = a_section(b"payload")
    good = packetize_section(section, PID, 0)[0]
    scrambled = good[:3] + bytes((good[3] | 0xC1,)) + good[4:]
    pointing_out = with_pid_and_counter(good, PID, 2)[:4] + b"\xb8" + good[5:]
    reassembler = SectionReassembler()
    for bad in (
        good[:1] + bytes((good[1] | 0x80,)) + good[2:],
        b"\x48" + good[1:],
        good[:-1],
        scrambled,
        pointing_out,
    ):
        assert reassembler.push(bad) == []
    assert reassembler.malformed == 5
    assert reassembler.push(with_pid_and_counter(good, PID, 3)) == [section]


def test_a_section_cut_short_by_the_next_is_dropped() -> None:
    """A unit start before the announced length was reached."""
    section, next_one = a_section(bytes(500)), a_section(b"next")
    reassembler = SectionReassembler()
    reassembler.push(packetize_section(section, PID, 0)[0])
    assert reassembler.push(packetize_section(next_one, PID, 1)[0]) == [next_one]
    assert reassembler.malformed == 1


def test_a_length_beyond_the_standard_is_dropped() -> None:
    """private_section_length is at most 4093 (clause 2.4.4.11)."""
    reassembler = SectionReassembler()
    packet = bytes((0x47, 0x41, 0x23, 0x10, 0, 0x82, 0x7F, 0xFF)) + bytes(180)
    assert reassembler.push(packet) == []
    assert reassembler.malformed == 1


@given(st.lists(st.binary(min_size=185, max_size=185), max_size=60))
def test_noise_raises_nothing_and_holds_little(noise: list[bytes]) -> None:
    """Whatever arrives, at most one section's worth is held back."""
    reassembler = SectionReassembler()
    for number, rest in enumerate(noise):
        flags = 0x41 if rest[0] & 1 else 0x01
        for section in reassembler.push(bytes((0x47, flags, 0x23)) + rest):
            assert 3 <= len(section) <= 4096, number
        assert len(reassembler._partial) <= 4096 + 184


@given(st.lists(sections, min_size=1, max_size=20), st.data())
def test_after_any_loss_only_true_sections_come_out(
    originals: list[bytes], data: st.DataObject
) -> None:
    """Dropping packets loses sections but never makes up one, as long as gaps show."""
    packets: list[bytes] = []
    for section in originals:
        packets += packetize_section(section, PID, len(packets) % 16)
    lost = data.draw(st.sets(st.integers(0, len(packets) - 1), max_size=3))
    reassembler = SectionReassembler()
    kept = [packet for number, packet in enumerate(packets) if number not in lost]
    found = [section for packet in kept for section in reassembler.push(packet)]
    assert all(section in originals for section in found)
    assert len(found) >= len(originals) - len(lost)
