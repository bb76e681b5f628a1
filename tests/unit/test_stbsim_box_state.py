"""States: docs/emm-format.md, "What the box does" 1, 2, 3 and 6."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stbsim_emm import (
    CA_SYSTEM_ID,
    DEVICE_ID,
    DEVICE_KEY,
    NO_END,
    NOW,
    hkdf,
    in_force,
    key_of,
    later,
    message,
    seal,
    state,
)

from stbsim.box import Box
from stbsim.emm import Entitlement
from stbsim.errors import Reason
from stbsim.events import (
    BoxEvent,
    EntitlementChanged,
    EntitlementGained,
    EntitlementLost,
    StateHeld,
)

_RECORDS = st.lists(
    st.tuples(
        st.integers(0, 0xFFFF),
        st.integers(0, 255),
        st.integers(0, NO_END),
        st.binary(min_size=16, max_size=16),
    ),
    max_size=8,
)


def _box() -> Box:
    return Box(DEVICE_ID, DEVICE_KEY)


def _feed(box: Box, *sections: bytes) -> list[BoxEvent]:
    return [event for section in sections for event in box.section(section, CA_SYSTEM_ID)]


def _products(box: Box) -> set[int]:
    return {each.product_id for each in box.entitlements if each.in_force(box.clock)}


def _held(box: Box) -> tuple[object, ...]:
    """Everything a box holds, as far as the world can see."""
    return box.active, box.number, box.state_utc, box.entitlements, dict(box.messages)


def test_a_state_gives_the_box_its_entitlements_and_its_number() -> None:
    """One part, opened with nothing but the device key and the CA_system_id."""
    box = _box()
    events = _feed(box, *state(7, in_force((5, 2, NOW + 10)), later((6, 0, NOW + 5, NO_END))))
    assert events == [
        StateHeld(DEVICE_ID, 1, 7, active=True),
        EntitlementGained(DEVICE_ID, 5, NOW + 10),
    ]
    assert box.number == (1, 7)
    assert box.active is True
    assert box.entitlements == (
        Entitlement(5, 2, 0, NOW + 10, key_of(5)),
        Entitlement(6, 0, NOW + 5, NO_END, key_of(6)),
    )


@given(records=_RECORDS, parts=st.integers(1, 15), data=st.data())
def test_any_state_cut_into_any_parts_opens_in_any_order(
    records: list[tuple[int, int, int, bytes]], parts: int, data: st.DataObject
) -> None:
    """Parts may come out of order and repeated; only the whole set counts."""
    value = b"".join(struct.pack(">HBI16s", *record) for record in records)
    sections = state(3, bytes((1, len(value))) + value, parts=parts)
    order = data.draw(st.permutations(sections + sections[:2]))
    box = _box()
    _feed(box, *order)
    expected = tuple(Entitlement(each[0], each[1], 0, each[2], each[3]) for each in records)
    assert box.number == (1, 3)
    assert box.entitlements == expected


def test_an_incomplete_set_moves_nothing() -> None:
    """Only a complete set moves what the box holds."""
    box = _box()
    _feed(box, *state(1, in_force((5, 0, NO_END))))
    before = _held(box)
    sections = state(2, in_force((6, 0, NO_END)), parts=3)
    assert _feed(box, sections[0], sections[2]) == []
    assert _held(box) == before
    _feed(box, sections[1])
    assert _products(box) == {6}


def test_a_newer_part_discards_an_older_incomplete_set() -> None:
    """The rest of the older set comes too late; the newer one completes."""
    box = _box()
    older = state(1, in_force((5, 0, NO_END)), parts=2)
    newer = state(2, in_force((6, 0, NO_END)), parts=2)
    _feed(box, older[0], newer[0], older[1])
    assert box.number is None
    assert box.ignored == {Reason.OLDER_THAN_COLLECTED: 1}
    _feed(box, newer[1])
    assert box.number == (1, 2)


def test_a_part_nobody_can_open_never_stops_the_box() -> None:
    """A damaged number on a later part looks newest of all; the true set completes all the same."""
    box = _box()
    sections = state(1, in_force((5, 0, NO_END)), parts=3)
    damaged = bytearray(sections[2])
    damaged[12] = 0xFF
    _feed(box, sections[0], bytes(damaged), sections[1], sections[2])
    assert box.number == (1, 1)


def test_parts_that_wait_for_their_first_are_bounded() -> None:
    """Anybody can send parts without a part 1; a box keeps few of them."""
    box = _box()
    for number in range(100):
        _feed(box, state(number, in_force((5, 0, NO_END)), parts=2)[1])
    assert len(box._waiting) == 32


def test_a_replayed_or_older_state_is_skipped_unopened() -> None:
    """Equal to or below what is held, epoch first; even a damaged one costs no opening."""
    box = _box()
    held = state(9, in_force((5, 0, NO_END)), epoch=2)
    _feed(box, *held)
    older = state(8, in_force((6, 0, NO_END)), epoch=2)
    lower_epoch = state(999, in_force((7, 0, NO_END)), epoch=1)
    assert _feed(box, *held, *older, *lower_epoch, held[0][:-1] + b"\0") == []
    assert _products(box) == {5}
    assert box.ignored == {Reason.NOT_NEWER: 4}


def test_a_higher_epoch_wins_over_a_higher_number() -> None:
    """The pair is compared, epoch first."""
    box = _box()
    _feed(box, *state(1000, epoch=1), *state(1, in_force((5, 0, NO_END)), epoch=2))
    assert box.number == (2, 1)


def test_another_boxs_emm_leaves_the_box_as_it_was() -> None:
    """Its own address, but sealed with another device's key, or for another CA system."""
    box = _box()
    payload = struct.pack(">BI", 1, NOW)
    _feed(box, *seal(1, 1, [payload], device_key=b"\x11" * 16))
    _feed(box, *seal(1, 1, [payload], ca_system_id=0x0123))
    assert box.number is None
    assert box.ignored == {Reason.UNWRAP_FAILED: 2}


@pytest.mark.parametrize(
    ("kind", "version", "reason"),
    [
        (1, 2, Reason.OTHER_VERSION),
        (0, 1, Reason.OTHER_KIND),
        (4, 1, Reason.OTHER_KIND),
    ],
)
def test_other_versions_and_kinds_are_ignored(kind: int, version: int, reason: Reason) -> None:
    """A box lives with newer head-ends."""
    box = _box()
    _feed(box, *seal(kind, 1, [struct.pack(">BI", 1, NOW)], version=version))
    assert box.number is None
    assert box.ignored == {reason: 1}


@given(data=st.data())
def test_a_corrupt_byte_anywhere_leaves_the_box_as_it_was(data: st.DataObject) -> None:
    """Header, wrapped DEK, ciphertext and tag are all covered; the true EMM works afterwards."""
    box = _box()
    _feed(box, *state(1, in_force((5, 0, NO_END))), message(40, "held"))
    before = _held(box)
    sections = data.draw(
        st.sampled_from(
            [
                state(2, in_force((6, 0, NO_END)), parts=2),
                state(2, status=0),
                [message(41, "new")],
            ]
        )
    )
    place = data.draw(st.integers(0, len(sections) - 1))
    at = data.draw(st.integers(8, len(sections[place]) - 1))
    damaged = bytearray(sections[place])
    damaged[at] ^= data.draw(st.integers(1, 255))
    _feed(box, *sections[:place], bytes(damaged), *sections[place + 1 :])
    assert _held(box) == before
    _feed(box, *sections)
    assert _held(box) != before


@given(st.binary(min_size=8, max_size=300))
def test_noise_behind_the_right_address_is_ignored_and_counted(noise: bytes) -> None:
    """Whatever stands after the address, the box neither moves nor raises."""
    box = _box()
    box.section(b"\x82\x70\x00" + DEVICE_ID.to_bytes(5) + noise, CA_SYSTEM_ID)
    assert box.number is None
    assert sum(box.ignored.values()) + len(box._waiting) == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x01\x00\x00\x00",
        b"\x02" + NOW.to_bytes(4),
        struct.pack(">BI", 1, NOW) + in_force((5, 0, NO_END))[:-1],
        struct.pack(">BI", 1, NOW) + b"\x01\x16" + bytes(22),
        struct.pack(">BI", 1, NOW) + b"\x02\x17" + bytes(23),
        struct.pack(">BI", 1, NOW) + b"\x01",
    ],
)
def test_a_malformed_state_is_ignored_whole(payload: bytes) -> None:
    """No multiple of the record size, a TLV over the end, no such status: nothing is taken over."""
    box = _box()
    _feed(box, *state(1, in_force((9, 0, NO_END))), *seal(1, 2, [payload]))
    assert box.number == (1, 1)
    assert _products(box) == {9}
    assert box.ignored == {Reason.MALFORMED: 1}


def test_unknown_tlvs_are_skipped_and_known_ones_may_repeat() -> None:
    """Old boxes live with new head-ends."""
    box = _box()
    unknown = b"\x77\x03abc"
    _feed(box, *state(1, in_force((5, 0, NO_END)), unknown, in_force((6, 0, NO_END))))
    assert _products(box) == {5, 6}


def test_parts_that_disagree_on_their_count_are_no_set() -> None:
    """Parts of one set agree on `parts`."""
    box = _box()
    two = state(1, in_force((5, 0, NO_END)), parts=2)
    three = state(1, in_force((5, 0, NO_END)), parts=3)
    _feed(box, two[0], three[1])
    assert box.number is None
    assert box.ignored == {Reason.MALFORMED: 1}


def test_a_state_is_never_dropped_for_its_age() -> None:
    """A box that slept for weeks takes the first state it hears."""
    box = _box()
    box.tick(NOW + 90 * 86_400)
    _feed(box, *state(1, in_force((5, 0, NO_END)), utc=NOW))
    assert _products(box) == {5}


def test_removed_ends_everything_and_an_older_state_brings_nothing_back() -> None:
    """Removed, then the earlier state replayed."""
    box = _box()
    active = state(1, in_force((5, 0, NO_END)))
    _feed(box, *active)
    events = _feed(box, *state(2, in_force((5, 0, NO_END)), status=0))
    assert EntitlementLost(DEVICE_ID, 5) in events
    _feed(box, *active)
    assert box.active is False
    assert box.entitlements == ()


def test_nothing_an_earlier_state_said_counts_any_more() -> None:
    """A product that the newer state leaves out is lost; a new end is a change."""
    box = _box()
    _feed(box, *state(1, in_force((5, 0, NO_END), (6, 0, NO_END))))
    events = _feed(box, *state(2, in_force((6, 0, NOW + 9))))
    assert events[1:] == [
        EntitlementLost(DEVICE_ID, 5),
        EntitlementChanged(DEVICE_ID, 6, NOW + 9),
    ]


def test_the_box_begins_and_ends_entitlements_itself() -> None:
    """In force while start ≤ t < end, by the time the stream tells."""
    box = _box()
    _feed(box, *state(1, later((5, 0, NOW + 10, NOW + 20))))
    assert box.tick(NOW + 9) == []
    assert box.tick(NOW + 10) == [EntitlementGained(DEVICE_ID, 5, NOW + 20)]
    assert box.tick(NOW + 19) == []
    assert box.tick(NOW + 20) == [EntitlementLost(DEVICE_ID, 5)]


def test_the_utc_of_the_state_is_a_floor_and_the_tdt_advances_it() -> None:
    """The higher of the two; an old TDT cannot bring an ended entitlement back."""
    box = _box()
    _feed(box, *state(1, in_force((5, 0, NOW + 100))))
    assert box.tick(NOW - 5000) == []
    assert box.clock == NOW
    box.tick(NOW + 100)
    assert _products(box) == set()
    _feed(box, *state(2, in_force((5, 0, NOW + 100)), utc=NOW + 150))
    box.tick(NOW + 50)
    assert box.clock == NOW + 150
    assert _products(box) == set()


def test_the_chain_opens_earlier_epochs_and_no_later_one() -> None:
    """Epochs count modulo 256; a chain is at most 128 long."""
    box = _box()
    _feed(box, *state(1, in_force((5, 1, NO_END))))
    below = key_of(5)
    for epoch in (0, 255):
        info = b"portcullis product chain v1" + (5).to_bytes(2) + bytes((epoch,))
        below = hkdf(below, info, 16)
    assert box.product_key(5, 1) == key_of(5)
    assert box.product_key(5, 255) == below
    assert box.product_key(5, 130) is not None
    assert box.product_key(5, 129) is None
    assert box.product_key(5, 2) is None
    assert box.product_key(6, 1) is None


def test_of_two_chains_the_nearest_epoch_opens() -> None:
    """Whichever record comes first; the new chain's key opens nothing of the old one."""
    old, new = (
        struct.pack(">HBI", 5, epoch, NO_END) + key
        for epoch, key in ((2, b"o" * 16), (3, b"n" * 16))
    )
    for number, value in enumerate((old + new, new + old), start=1):
        box = _box()
        _feed(box, *state(number, bytes((1, len(value))) + value))
        assert box.product_key(5, 2) == b"o" * 16
        assert box.product_key(5, 3) == b"n" * 16
        assert box.product_key(5, 1) not in (None, b"n" * 16)


def test_an_ended_entitlement_gives_no_key() -> None:
    """The key is there only as long as the window is open."""
    box = _box()
    _feed(box, *state(1, in_force((5, 1, NOW + 10))))
    box.tick(NOW + 10)
    assert box.product_key(5, 1) is None


def test_two_records_of_one_product_open_two_chains() -> None:
    """During the change-over to a new key chain."""
    box = _box()
    _feed(box, *state(1, in_force((5, 200, NO_END), (5, 10, NO_END))))
    assert box.product_key(5, 200) == key_of(5)
    assert box.product_key(5, 10) == key_of(5)


def test_keys_do_not_show_in_the_text_of_a_box() -> None:
    """Neither the device key nor a product key."""
    box = _box()
    _feed(box, *state(1, in_force((5, 0, NO_END))))
    assert repr(DEVICE_KEY) not in repr(box)
    assert repr(key_of(5)) not in repr(box)
