"""The arena gives back what was put in, in few bytes."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvbwire.ts import SectionReassembler, packetize_section
from portcullis.cycler.arena import Arena, StateSections
from portcullis.cycler.errors import NotAirableError
from portcullis.cycler.index import KeyIndex, key_hash, key_hashes
from tests.unit.cycler_emms import emm_row, section_of


@given(size=st.integers(17, 256), other=st.integers(17, 256))
def test_the_arena_gives_back_what_was_put_in(size: int, other: int) -> None:
    """As a section and as packets, also after replacement; a slot serves another of its size."""
    arena = Arena()
    arena.add(emm_row(9))
    for emm in (emm_row(1, size=size), emm_row(1, number=2, size=other)):
        slot = arena.find(emm.key)
        slot = arena.add(emm) if slot is None else arena.replace(slot, emm)
        assert arena.find(emm.key) == slot
        assert arena.section(slot) == emm.section
        packets, headers = arena.packets(np.array([slot]))
        assert packets.tobytes() == b"".join(packetize_section(emm.section, 0x1FFF))
        told = (headers.device, headers.message, headers.part, headers.number, headers.size)
        expected = [1, 0, 1, emm.number, len(emm.section)]
        assert [column.tolist() for column in told] == [[value] for value in expected]
    assert slot is not None
    arena.remove(slot)
    assert arena.find((1, 0, 1)) is None
    assert arena.add(emm_row(3, size=other)) == slot
    assert arena.section(slot) == emm_row(3, size=other).section


@given(
    st.lists(st.tuples(st.integers(1, 2**40 - 1), st.integers(17, 256)), min_size=1, max_size=30)
)
def test_packets_keep_the_order_of_the_slots(boxes: list[tuple[int, int]]) -> None:
    """Whatever sizes lie side by side."""
    arena = Arena()
    rows = {device: emm_row(device, size=size) for device, size in boxes}
    slots = [arena.add(row) for row in rows.values()]
    order = slots[::-1] + slots
    packets, headers = arena.packets(np.array(order))
    sections = [section for one in packets for section in _sections(one.tobytes())]
    assert len(packets) == arena.costs(np.array(order)).sum()
    expected = [*reversed(rows.values()), *rows.values()]
    whole = SectionReassembler()
    joined = [
        section for index, one in enumerate(packets) for section in whole.push(_counted(one, index))
    ]
    assert joined == [row.section for row in expected]
    assert headers.device.tolist() == [row.device_id for row in expected]
    assert len(sections) <= len(joined)


def _sections(packet: bytes) -> list[bytes]:
    return SectionReassembler().push(packet)


def _counted(packet: np.ndarray, index: int) -> bytes:  # type: ignore[type-arg]
    """With the continuity counter a multiplexer gives it."""
    data = bytearray(packet.tobytes())
    data[3] = 0x10 | index & 15
    return bytes(data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"section": b"\x82\x70\x00"},
        {"section": emm_row(size=100).section + b"\0"},
        {"section": b"\x84" + emm_row().section[1:]},
        {"section": b"\x82\xf0" + emm_row().section[2:]},
        {"section": emm_row(size=256).section + bytes(4)},
        {"device_id": 2},
        {"number": 2},
        {"message_id": 7},
    ],
)
def test_a_row_that_contradicts_its_section_is_refused(wrong: dict[str, object]) -> None:
    """And takes nothing, whether its key is new or known."""
    arena = Arena()
    emm = emm_row()._replace(**wrong)  # type: ignore[arg-type]
    with pytest.raises(NotAirableError):
        arena.add(emm)
    assert len(arena) == 0
    slot = arena.add(emm_row())
    with pytest.raises(NotAirableError):
        arena.replace(slot, emm)
    assert arena.section(slot) == emm_row().section


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(16, 256)), unique_by=lambda x: x[0]))
def test_states_are_cut_apart_and_taken_in_at_once(boxes: list[tuple[int, int]]) -> None:
    """The same as one by one."""
    sections = [section_of(device, device + 7, size) for device, size in boxes]
    states = StateSections.of(b"".join(sections), 0, 500)
    arena = Arena()
    slots = arena.load(states)
    assert [arena.section(slot) for slot in slots.tolist()] == sections
    for (device, _), section in zip(boxes, sections, strict=True):
        slot = arena.find((device, 0, 1))
        assert slot is not None
        assert arena.section(slot) == section
    assert [row.section for row in states.rows(0.0)] == sections
    assert sorted(arena.keys()) == sorted((device, 0, 1) for device, _ in boxes)


@pytest.mark.parametrize(
    "data",
    [
        section_of(5, 1, 60)[:-1],
        section_of(5, 1, 60) + b"\x82",
        section_of(4, 1, 60),
        section_of(6, 1, 60),
        b"\x84" + section_of(5, 1, 60)[1:],
        b"\x82\xf0" + section_of(5, 1, 60)[2:],
        b"\x82\x70\x05" + bytes(5),
    ],
)
def test_a_page_with_a_damaged_state_is_refused_whole(data: bytes) -> None:
    """Which of them it is cannot be told: too short, too long, or of another page."""
    with pytest.raises(NotAirableError):
        StateSections.of(data, 4, 5)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "load", "remove"]),
            st.integers(0, 30),
            st.sampled_from([20, 21]),
        ),
        max_size=60,
    )
)
def test_the_arena_holds_what_came_last_of_each_key(
    operations: list[tuple[str, int, int]],
) -> None:
    """Over pages that fill up, empty, and fill up again."""
    arena = Arena()
    held: dict[int, bytes] = {}
    fresh = 1000
    for what, device, size in operations:
        if what == "load":
            sections = [section_of(fresh + i, 1, size) for i in range(700)]
            arena.load(StateSections.of(b"".join(sections), 0, fresh + 700))
            held |= {fresh + i: section for i, section in enumerate(sections)}
            fresh += 700
            continue
        gone = range(fresh - 700, fresh) if what == "remove" and fresh > 1000 else [device]
        for one in gone:
            slot = arena.find((one, 0, 1))
            assert (slot is not None) == (one in held)
            if what == "put":
                row = emm_row(one, size=size)
                arena.add(row) if slot is None else arena.replace(slot, row)
                held[one] = row.section
            elif slot is not None:
                arena.remove(slot)
                del held[one]
    slots = arena.slots()
    assert sorted(arena.sections(slots)) == sorted(held.values())
    assert sorted(arena.keys()) == sorted((device, 0, 1) for device in held)
    assert len(set(slots.tolist())) == len(arena) == len(held)


def test_a_page_that_has_emptied_costs_nothing() -> None:
    """All EMMs of one size, replaced by others of another, are not kept twice."""
    arena = Arena()
    devices = range(1, 20_001)
    slots = arena.load(
        StateSections.of(b"".join(section_of(i, 1, 200) for i in devices), 0, 20_000)
    )
    before = _resident()
    for device, slot in zip(devices, slots.tolist(), strict=True):
        arena.replace(slot, emm_row(device, size=220))
    assert _resident() - before < 20_000 * 200 / 2  # the process's own heap moves a little, too


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * mmap.PAGESIZE


keys = st.tuples(st.integers(1, 2**40 - 1), st.integers(0, 2**32 - 1), st.integers(1, 255))


@given(keys)
def test_one_hash_is_that_of_many(key: tuple[int, int, int]) -> None:
    columns = (np.array([value]) for value in key)
    assert key_hashes(*columns).tolist() == [key_hash(key)]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "many", "remove"]), st.integers(0, 40)), max_size=200
    )
)
def test_the_index_finds_what_is_in_it(operations: list[tuple[str, int]]) -> None:
    """With hashes that collide all the time; tombstones and growth lose nothing."""
    index = KeyIndex(lambda slots: slots % 3)
    slots: set[int] = set()
    fresh = 0
    for what, value in operations:
        if what == "add":
            index.add(fresh % 3, fresh)
            slots.add(fresh)
            fresh += 1
        elif what == "many":
            more = np.arange(fresh, fresh + value * 10)
            index.add_all(more % 3, more)
            slots |= set(more.tolist())
            fresh += len(more)
        elif slots:
            gone = sorted(slots)[value % len(slots)]
            slots.remove(gone)
            index.remove(gone % 3, lambda slot, gone=gone: slot == gone)  # type: ignore[misc]
        assert len(index) == len(slots)
    assert set(index.slots().tolist()) == slots
    for slot in list(slots)[:20]:
        assert index.find(slot % 3, lambda one, slot=slot: one == slot) == slot  # type: ignore[misc]
    assert index.find(0, lambda slot: slot == fresh) is None
