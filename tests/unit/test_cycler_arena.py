"""The arena gives back what was put in, in few bytes."""

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
    """As a section and as packets, also after replacement and reuse of the slot."""
    arena = Arena()
    arena.add(emm_row(9))
    for emm in (emm_row(1, size=size), emm_row(1, number=2, size=other)):
        slot = arena.find(emm.key)
        if slot is None:
            slot = arena.add(emm)
        else:
            arena.replace(slot, emm)
        assert arena.section(slot) == emm.section
        packets, headers = arena.packets(np.array([slot]))
        assert packets.tobytes() == b"".join(packetize_section(emm.section, 0x1FFF))
        told = (headers.device, headers.message, headers.part, headers.number, headers.size)
        expected = [1, 0, 1, emm.number, len(emm.section)]
        assert [column.tolist() for column in told] == [[value] for value in expected]
    arena.remove(slot)
    assert arena.find((1, 0, 1)) is None
    assert arena.add(emm_row(3, size=20)) == slot
    assert arena.section(slot) == emm_row(3, size=20).section


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
        b"\x82\x70\x05" + bytes(5),
    ],
)
def test_a_page_with_a_damaged_state_is_refused_whole(data: bytes) -> None:
    """Which of them it is cannot be told: too short, too long, or of another page."""
    with pytest.raises(NotAirableError):
        StateSections.of(data, 4, 5)


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
