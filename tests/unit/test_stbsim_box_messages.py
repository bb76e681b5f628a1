"""Messages: docs/emm-format.md, "What the box does" 4, 5 and 6."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from stbsim_emm import CA_SYSTEM_ID, DEVICE_ID, DEVICE_KEY, NOW, message, seal, state, withdrawal

from stbsim.box import Box
from stbsim.errors import Reason
from stbsim.events import BoxEvent, MessageEnd, MessageEnded, MessageShown


def _box() -> Box:
    box = Box(DEVICE_ID, DEVICE_KEY)
    box.tick(NOW)
    return box


def _feed(box: Box, *sections: bytes) -> list[BoxEvent]:
    return [event for section in sections for event in box.section(section, CA_SYSTEM_ID)]


def _texts(box: Box) -> dict[int, str]:
    return {message_id: held.text for message_id, held in box.messages.items()}


def test_a_message_is_shown_once() -> None:
    """A second airing is known by its id."""
    box = _box()
    section = message(7, "Guten Tag", duration=5, priority=200)
    assert _feed(box, section) == [MessageShown(DEVICE_ID, 7, "Guten Tag", 5, 1, 200)]
    assert _feed(box, section) == []
    assert box.ignored == {Reason.REPEATED: 1}


@given(text=st.text(min_size=1, max_size=40), data=st.data())
def test_segments_make_one_text_in_any_order(text: str, data: st.DataObject) -> None:
    """Each segment is a section of its own; repeats change nothing."""
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=5))})
    pieces = [text[start:end] for start, end in pairwise(cuts)]
    sections = [
        message(7, piece, segment=place, segments=len(pieces))
        for place, piece in enumerate(pieces, start=1)
    ]
    box = _box()
    events = _feed(box, *data.draw(st.permutations(sections + sections)))
    assert _texts(box) == {7: text}
    assert [event for event in events if isinstance(event, MessageShown)] == events


def test_an_incomplete_text_is_not_held() -> None:
    """Two of three segments."""
    box = _box()
    _feed(box, *(message(7, "x", segment=place, segments=3) for place in (1, 3)))
    assert box.messages == {}


def test_segments_that_disagree_on_their_count_make_no_text() -> None:
    """The one that came first decides."""
    box = _box()
    _feed(box, message(7, "a", segment=1, segments=2), message(7, "b", segment=2, segments=3))
    assert box.messages == {}
    assert box.ignored == {Reason.MALFORMED: 1}


def test_a_withdrawal_takes_a_message_off_the_screen() -> None:
    """And out of what the box holds."""
    box = _box()
    _feed(box, message(7, "x"))
    assert _feed(box, withdrawal(7)) == [MessageEnded(DEVICE_ID, 7, MessageEnd.WITHDRAWN)]
    assert box.messages == {}
    assert _feed(box, withdrawal(7), message(7, "x")) == []


def test_a_withdrawal_that_comes_first_keeps_the_message_away() -> None:
    """Order on air does not matter."""
    box = _box()
    assert _feed(box, withdrawal(7), message(7, "x")) == []
    assert box.messages == {}


def test_a_withdrawal_stops_a_text_half_received() -> None:
    """The segment that would complete it is ignored."""
    box = _box()
    first, second = (message(7, "x", segment=place, segments=2) for place in (1, 2))
    assert _feed(box, first, withdrawal(7), second) == []
    assert box.messages == {}


def test_an_expired_message_is_dropped() -> None:
    """`expiry` has come: not shown; one second earlier it is."""
    box = _box()
    _feed(box, message(7, "late", expiry=NOW), message(8, "in time", expiry=NOW + 1))
    assert _texts(box) == {8: "in time"}
    assert box.ignored == {Reason.EXPIRED: 1}
    assert box.tick(NOW + 1) == [MessageEnded(DEVICE_ID, 8, MessageEnd.EXPIRED)]
    assert box.messages == {}


def test_a_box_that_knows_no_time_shows_and_drops_when_the_time_comes() -> None:
    """Without TDT and state nothing has expired yet."""
    box = Box(DEVICE_ID, DEVICE_KEY)
    _feed(box, message(7, "x", expiry=NOW), message(8, "y", duration=5))
    assert _texts(box) == {7: "x", 8: "y"}
    assert box.tick(NOW) == [MessageEnded(DEVICE_ID, 7, MessageEnd.EXPIRED)]
    assert box.tick(NOW + 5) == [MessageEnded(DEVICE_ID, 8, MessageEnd.DURATION)]


def test_a_message_off_the_screen_is_held_until_its_expiry() -> None:
    """`duration` empties the screen, `expiry` the memory; the second end is silent."""
    box = _box()
    _feed(box, message(7, "x", duration=10))
    assert box.tick(NOW + 9) == []
    assert box.tick(NOW + 10) == [MessageEnded(DEVICE_ID, 7, MessageEnd.DURATION)]
    assert _texts(box) == {7: "x"}
    assert _feed(box, message(7, "x")) == []
    assert box.tick(NOW + 1000) == []
    assert box.messages == {}


def test_an_id_is_remembered_only_until_its_expiry() -> None:
    """After that the message itself has expired, so memory stays bounded."""
    box = _box()
    _feed(box, message(7, "x"), withdrawal(8), message(9, "half", segments=2))
    box.tick(NOW + 1000)
    assert box._remembered == {}
    assert box._segments == {}


def test_an_expired_withdrawal_is_ignored() -> None:
    """It would have nothing left to stop."""
    box = _box()
    _feed(box, withdrawal(7, expiry=NOW), message(7, "x"))
    assert _texts(box) == {7: "x"}
    assert box.ignored == {Reason.EXPIRED: 1}


def test_removed_drops_all_messages_and_shows_no_more() -> None:
    """Whether the message comes before or after the state."""
    box = _box()
    _feed(box, message(7, "x"))
    events = _feed(box, *state(1, status=0), message(8, "y"))
    assert MessageEnded(DEVICE_ID, 7, MessageEnd.REMOVED) in events
    assert box.messages == {}
    assert box.ignored == {Reason.REMOVED: 1}


def test_a_message_that_is_no_utf_8_is_ignored() -> None:
    """A character cut in two is no segment."""
    box = _box()
    [broken] = seal(2, 8, [bytes((1, 1, 0, 0, 0, 0)) + (NOW + 9).to_bytes(4) + b"\xc3"])
    assert _feed(box, broken) == []
    assert box.ignored == {Reason.MALFORMED: 1}


def test_messages_neither_read_nor_move_the_number() -> None:
    """A message id above the sequence does not stop the next state."""
    box = _box()
    _feed(box, *state(5), message(1000, "x"), *state(6))
    assert box.number == (1, 6)
