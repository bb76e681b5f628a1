"""What becomes of the packets of the input."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from dvbwire.psi import CAT_PID, TDT_PID, CaDescriptor, Cat, Descriptor, Tdt
from dvbwire.ts import (
    NULL_PACKET,
    NULL_PID,
    SectionReassembler,
    continuity_counter_of,
    packetize_section,
    pid_of,
    with_pid_and_counter,
)
from portcullis.mux.cat import CatMerger
from portcullis.mux.inserter import EmmQueue, Inserter

EMM_PID = 0x1F00
OURS = CaDescriptor(0xFFF0, EMM_PID)
UTC_NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)


def _emm(mark: int, size: int = 100) -> bytes:
    return b"\x82\x70" + bytes((size - 3,)) + mark.to_bytes(5) + bytes(size - 8)


def _packet(pid: int, counter: int, mark: int = 0) -> bytes:
    header = bytes((0x47, pid >> 8, pid & 0xFF, 0x10 | counter))
    return header + mark.to_bytes(4) + bytes(180)


def _sections(packets: Iterable[bytes], pid: int) -> list[bytes]:
    reassembler = SectionReassembler()
    sections = [
        section for each in packets if pid_of(each) == pid for section in reassembler.push(each)
    ]
    assert reassembler.discontinuities == 0
    assert reassembler.malformed == 0
    return sections


def _seconds(
    inserter: Inserter, count: float, packets: list[bytes], start: float = 0
) -> list[bytes]:
    """Run `packets` through in each hundredth of `count` seconds."""
    output = []
    for tick in range(round(count * 100)):
        output += inserter.process(packets, start + tick / 100, UTC_NOW)
    return output


def test_emms_take_the_place_of_null_packets_and_of_nothing_else() -> None:
    """The number and order of all other packets stay; EMMs get PID and counters of their own."""
    inserter = Inserter()
    queue = EmmQueue(EMM_PID, 10)
    for mark in range(3):
        assert inserter.offer(queue, packetize_section(_emm(mark), NULL_PID))
    given_packets = [_packet(0x100, 0), NULL_PACKET, _packet(0x101, 5), NULL_PACKET, NULL_PACKET]
    output = inserter.process(given_packets * 2, 0.0, UTC_NOW)
    assert [pid_of(each) for each in output] == [
        *[0x100, EMM_PID, 0x101, EMM_PID, EMM_PID],
        *[0x100, NULL_PID, 0x101, NULL_PID, NULL_PID],
    ]
    assert [continuity_counter_of(output[at]) for at in (1, 3, 4)] == [0, 1, 2]
    assert _sections(output, EMM_PID) == [_emm(mark) for mark in range(3)]
    assert (inserter.counts.packets, inserter.counts.nulls, inserter.counts.emm) == (10, 6, 3)


@given(data=st.data())
def test_every_emm_taken_goes_out_once_whole_and_in_order(data: st.DataObject) -> None:
    """Several streams, sections of any size, any input: nothing taken is lost or torn."""
    inserter = Inserter()
    queues = [EmmQueue(EMM_PID + at, 8) for at in range(3)]
    taken: dict[int, list[bytes]] = {queue.pid: [] for queue in queues}
    refused = 0
    output: list[bytes] = []
    services = st.sampled_from([NULL_PACKET, NULL_PACKET, _packet(0x100, 0)])
    for step in range(data.draw(st.integers(1, 12))):
        queue = data.draw(st.sampled_from(queues))
        emm = _emm(step, data.draw(st.integers(16, 250)))
        packets = packetize_section(emm, NULL_PID)
        if inserter.offer(queue, packets):
            taken[queue.pid].append(emm)
        else:
            refused += len(packets)
        batch = data.draw(st.lists(services, max_size=3))
        processed = inserter.process(batch, 0.0, UTC_NOW)
        kept = [each for each in zip(batch, processed, strict=True) if each[0] != NULL_PACKET]
        assert all(before == after for before, after in kept)
        output += processed
    output += inserter.process([NULL_PACKET] * 30, 0.0, UTC_NOW)
    assert {pid: _sections(output, pid) for pid in taken} == taken
    assert sum(queue.refused for queue in queues) == refused


def test_streams_take_turns() -> None:
    """A full queue does not keep another waiting."""
    inserter = Inserter()
    busy, quiet = EmmQueue(EMM_PID, 100), EmmQueue(EMM_PID + 1, 100)
    for mark in range(5):
        inserter.offer(busy, packetize_section(_emm(mark), NULL_PID))
    inserter.offer(quiet, packetize_section(_emm(9), NULL_PID))
    output = inserter.process([NULL_PACKET] * 3, 0.0, UTC_NOW)
    assert [pid_of(each) for each in output] == [EMM_PID, EMM_PID + 1, EMM_PID]


def test_a_full_queue_refuses_the_newest_datagram_whole() -> None:
    """What was taken stays; half a section is never queued."""
    queue = EmmQueue(EMM_PID, 3)
    two = packetize_section(_emm(1, 250), NULL_PID)
    assert queue.offer(two)
    assert not queue.offer(two)
    assert (len(queue), queue.refused) == (2, 2)


def test_the_cat_comes_every_100_ms() -> None:
    """As soon as there is something to say, and from then on."""
    inserter = Inserter()
    assert _sections(_seconds(inserter, 1, [NULL_PACKET] * 10), CAT_PID) == []
    inserter.announce([OURS])
    output = _seconds(inserter, 1, [NULL_PACKET] * 10, start=1)
    cats = [Cat.from_section(section) for section in _sections(output, CAT_PID)]
    assert [cat.descriptors for cat in cats] == [(OURS,)] * 10
    assert inserter.counts.cat == 10


def test_the_cat_of_the_input_is_merged_and_gives_up_its_slots() -> None:
    """Its descriptors stay, ours are added; no packet of the old CAT remains."""
    inserter = Inserter()
    foreign = (Descriptor(0x77, b"x"), CaDescriptor(0x0100, 0x500))
    stale = CaDescriptor(0xFFF0, 0x600)
    heard = Cat(7, (*foreign, stale, CaDescriptor(0x0200, EMM_PID))).to_section()
    inserter.announce([OURS])
    output = []
    for tick in range(100):
        packets = [*packetize_section(heard, CAT_PID, tick % 16), NULL_PACKET]
        output += inserter.process(packets, tick / 100, UTC_NOW)
    sections = _sections(output, CAT_PID)
    assert Cat.from_section(sections[0]).descriptors == (OURS,)
    assert {Cat.from_section(section).descriptors for section in sections[1:]} == {(*foreign, OURS)}
    assert len(sections) == 10


def test_the_cat_counts_its_version_on_only_when_it_changes() -> None:
    """Modulo 32, from a first version that differs from start to start."""
    merger = CatMerger(first_version=31)
    merger.announce([OURS])
    both = [OURS, CaDescriptor(0xFFF1, EMM_PID + 1)]
    versions = []
    for own in ([OURS], [OURS], both, both, []):
        merger.announce(own)
        [section] = _sections(merger.packets(), CAT_PID)
        versions.append(Cat.from_section(section).version)
    assert versions == [31, 31, 0, 0, 1]


def test_a_cat_too_long_for_one_section_takes_several() -> None:
    """Every descriptor is there once."""
    merger = CatMerger()
    long = tuple(CaDescriptor(0x0100 + at, 0x500 + at, bytes(200)) for at in range(6))
    [heard] = [packetize_section(Cat(0, long[:4]).to_section(), CAT_PID)]
    for packet in heard:
        merger.hear(packet)
    merger.announce(long[4:])
    cats = [Cat.from_section(section) for section in _sections(merger.packets(), CAT_PID)]
    assert tuple(each for cat in cats for each in cat.descriptors) == long
    assert [(cat.section_number, cat.last_section_number) for cat in cats] == [(0, 1), (1, 1)]


def test_a_tdt_is_added_every_second_where_the_input_has_none() -> None:
    """After a look at the input, from the wall clock."""
    inserter = Inserter()
    output = _seconds(inserter, 5, [NULL_PACKET] * 4)
    assert [Tdt.from_section(each).utc for each in _sections(output, TDT_PID)] == [UTC_NOW] * 3
    assert not inserter.input_has_tdt


def test_a_tdt_of_the_input_ends_ours_without_a_break_of_the_counter() -> None:
    """Ours comes back when the input's stays away for 30 s."""
    inserter = Inserter()
    theirs = Tdt(datetime(2001, 1, 1, tzinfo=UTC))
    output = _seconds(inserter, 3, [NULL_PACKET])
    output += inserter.process(packetize_section(theirs.to_section(), TDT_PID, 9), 3.0, UTC_NOW)
    assert inserter.input_has_tdt
    output += _seconds(inserter, 31, [NULL_PACKET], start=3)
    heard = [Tdt.from_section(each) for each in _sections(output, TDT_PID)]
    assert heard == [Tdt(UTC_NOW), theirs, Tdt(UTC_NOW)]
    assert not inserter.input_has_tdt


def test_input_packets_on_our_pid_give_way() -> None:
    """Two owners of one PID would break both; the slots become ours and are counted."""
    inserter = Inserter()
    inserter.reserve([EMM_PID])
    assert inserter.process([_packet(EMM_PID, 3)], 0.0, UTC_NOW) == [NULL_PACKET]
    assert inserter.counts.displaced == 1


def _counters(packets: Iterable[bytes], pid: int) -> Iterator[int]:
    return (continuity_counter_of(each) for each in packets if pid_of(each) == pid)


def test_without_null_packets_nothing_is_inserted() -> None:
    """The input goes through untouched and the EMMs wait."""
    inserter = Inserter()
    inserter.announce([OURS])
    queue = EmmQueue(EMM_PID, 10)
    inserter.offer(queue, packetize_section(_emm(1), NULL_PID))
    full = [_packet(0x100, counter % 16) for counter in range(40)]
    assert inserter.process(full, 0.0, UTC_NOW) == full
    assert list(_counters(full, 0x100)) == [counter % 16 for counter in range(40)]
    assert len(queue) == 1


def test_the_pid_and_counter_of_the_provider_do_not_matter() -> None:
    """In packet mode they belong to the multiplexer."""
    inserter = Inserter()
    queue = EmmQueue(EMM_PID, 10)
    [packet] = packetize_section(_emm(1), 0x0ABC, 7)
    inserter.offer(queue, [packet])
    [output] = inserter.process([NULL_PACKET], 0.0, UTC_NOW)
    assert output == with_pid_and_counter(packet, EMM_PID, 0)
