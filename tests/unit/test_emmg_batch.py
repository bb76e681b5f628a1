"""What the encryptor is asked, and what is made of its answers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from portcullis.emm import OPEN_END, Kind
from portcullis.emmg import batch as emmg_batch
from portcullis.emmg.batch import Batch, epoch_for, read_reply
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.store.keys import DeviceKey
from portcullis.store.to_seal import Orders
from portcullis.store.work import Claimed

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def unix(moment: datetime) -> int:
    """Unix seconds."""
    return int(moment.timestamp())


def key(purpose: str, owner: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 (columns)
    """A row of `keys`."""
    return {
        "purpose": purpose,
        "owner": owner,
        "first_epoch": 1,
        "last_epoch": 64,
        "master_id": "m",
        "sealed_key": b"blob",
        "live_epoch": 3,
        "seal_epoch": 3,
        "switch_at": None,
    } | more


def device_key(device_id: int) -> DeviceKey:
    """A device's sealed key."""
    return 0, 65535, "m", f"key of {device_id}".encode()


def claimed(device_id: int = 7, *, seals_state: bool = True) -> Claimed:
    """A claim."""
    return Claimed(device_id, 5, seals_state, 0, 1_777_000_000, "order", 1, {101: 2})


def orders(**changes: Any) -> Orders:  # noqa: ANN401 (fields)
    """A box with one product."""
    entitlement = (101, unix(NOW - HOUR), unix(NOW + HOUR))
    values: dict[str, Any] = {
        "now": NOW,
        "active": {7: True},
        "entitlements": {7: [entitlement]},
        "messages": {},
        "device_keys": {7: device_key(7)},
        "chains": {101: [key("product", 101)]},
    }
    return Orders(**values | changes)


def message(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 (columns)
    """A row of `messages`."""
    return {
        "message_id": 9,
        "text": "hello",
        "duration_s": 5,
        "position": 0,
        "priority": 0,
        "starts_at": NOW,
        "expires_at": NOW + HOUR,
        "ordered_at": NOW,
        "removed_at": None,
    } | changes


def build_batch(claims: list[Claimed], ordered: Orders) -> Batch:
    """Build a batch."""
    return emmg_batch.build_batch(claims, ordered, 0xFFF0)


def test_a_state_names_products_epochs_and_windows() -> None:
    """A start goes on air only while it lies ahead."""
    later = (101, unix(NOW + HOUR), None)
    now = build_batch([claimed()], orders())
    ahead = build_batch([claimed()], orders(entitlements={7: [later]}))
    (grant,) = now.states.grants
    assert (grant.product_id, grant.epoch, grant.key) == (101, 3, 0)
    hour = unix(NOW + HOUR)
    assert (now.states.utc, list(now.states.active)) == (unix(NOW), [True])
    assert list(now.states.entitlement_starts_at) == [0]
    assert list(now.states.entitlement_ends_at) == [hour]
    assert list(ahead.states.entitlement_starts_at) == [hour]
    assert list(ahead.states.entitlement_ends_at) == [OPEN_END]


def test_what_begins_with_its_order_waits_for_no_clock() -> None:
    """The database's clock was ahead when it was ordered, and has been set back since."""
    now = NOW - HOUR
    since_order = (101, None, None)
    asked = build_batch(
        [claimed()],
        orders(now=now, entitlements={7: [since_order]}, messages={7: [message()]}),
    )
    assert list(asked.states.entitlement_starts_at) == [0]
    assert [draft.starts_at for draft in asked.item_drafts] == [None]
    planned = build_batch(
        [claimed(seals_state=False)],
        orders(now=now, messages={7: [message(ordered_at=now)]}),
    )
    assert [draft.starts_at for draft in planned.item_drafts] == [NOW]


def test_a_product_key_is_sent_once_for_many_boxes() -> None:
    """States refer to it by index, and to what else they have in common."""
    many = orders(
        active={7: True, 8: True},
        entitlements={n: orders().entitlements[7] for n in (7, 8)},
        device_keys={n: device_key(n) for n in (7, 8)},
    )
    batch = build_batch([claimed(7), claimed(8)], many)
    states = batch.states
    assert (len(states.product_keys), len(states.grants), len(states.labels)) == (1, 1, 1)
    assert list(states.addresses) == [7, 8]
    assert list(states.entitlements) == [1, 1]
    assert list(states.entitlement_grants) == list(states.device_key_labels) == [0, 0]


def test_boxes_that_hold_the_same_are_told_the_same_and_others_are_not() -> None:
    """By products and windows, whatever each has held before; what is held never falls back."""
    now, until = orders().entitlements[7], (101, None, unix(NOW + 2 * HOUR))
    many = orders(
        active=dict.fromkeys((7, 8, 9), True),
        entitlements={7: now, 8: now, 9: [until]},
        device_keys={n: device_key(n) for n in (7, 8, 9)},
    )
    before = claimed(8)._replace(held={101: 9, 102: 1})
    batch = build_batch([claimed(7), before, claimed(9)], many)
    hours = [unix(NOW + n * HOUR) for n in (1, 1, 2)]
    assert list(batch.states.entitlement_ends_at) == hours
    assert list(batch.states.entitlements) == [1, 1, 1]
    assert batch.held == {7: {101: 3}, 8: {101: 9, 102: 1}, 9: {101: 3}}


def test_a_box_that_waits_for_a_key_leaves_nothing_in_the_columns() -> None:
    """Its second product has no chain yet."""
    many = orders(
        active={7: True, 8: True},
        entitlements={7: [(101, None, None), (102, None, None)], 8: []},
        device_keys={n: device_key(n) for n in (7, 8)},
    )
    states = build_batch([claimed(7), claimed(8)], many).states
    assert list(states.addresses) == [8]
    assert list(states.entitlements) == [0]
    assert not states.entitlement_grants


def test_a_removed_box_is_told_so_without_any_key() -> None:
    """What it held is remembered, so that the scheduler knows how long to tell it."""
    batch = build_batch([claimed()], orders(active={7: False}))
    assert list(batch.states.active) == [False]
    assert list(batch.states.entitlements) == [0]
    assert batch.held == {7: {101: 2}}


def test_the_next_epoch_goes_only_to_windows_that_reach_into_it() -> None:
    """Prepared ahead: a window that ends before the switch keeps the live epoch."""
    chain = key("product", 101, seal_epoch=4, switch_at=NOW)
    assert epoch_for(chain, unix(NOW + HOUR)) == 4
    assert epoch_for(chain, None) == 4
    assert epoch_for(chain, unix(NOW)) == 3


def test_a_box_without_a_key_is_refused_and_one_before_its_products_key_waits() -> None:
    """The one is poison, the other is early."""
    assert build_batch([claimed()], orders(device_keys={})).refused.keys() == {7}
    assert build_batch([claimed()], orders(chains={})).waiting.keys() == {7}


def test_messages_neither_read_nor_move_the_number_of_the_state() -> None:
    """A message goes by its id; with nothing else to do the state is left alone."""
    batch = build_batch([claimed(seals_state=False)], orders(messages={7: [message()]}))
    assert [(item.number, item.WhichOneof("content")) for item in batch.items] == [(9, "message")]
    gone = orders(messages={7: [message(removed_at=NOW)]})
    assert build_batch([claimed(seals_state=False)], gone).items[0].HasField("withdrawal")


def test_answers_find_their_claims() -> None:
    """A device of which any EMM was refused is not written; one with nothing to seal is done."""
    two = orders(
        messages={7: [message()]},
        active={7: True, 8: True},
        device_keys={n: device_key(n) for n in (7, 8, 9)},
    )
    batch = build_batch([claimed(7), claimed(8), claimed(9, seals_state=False)], two)
    states = pb.SealStatesReply(parts=[1, 1], sections=[b"state", b"state"])
    answers = [pb.Sealed(error="too long", code="too_large")]
    finished, refused = read_reply(batch, states, answers)
    assert refused == {7: "too_large: too long"}
    assert [(done.claimed.device_id, len(done.emms)) for done in finished] == [(8, 1), (9, 0)]
    (emm,) = finished[0].emms
    assert (emm.kind, emm.number, emm.covers) == (Kind.STATE, 1_777_000_000, 5)


def test_a_state_that_is_refused_is_not_written_and_its_neighbours_have_their_own_sections() -> (
    None
):
    """Of a message that was sealed for the same box neither."""
    three = orders(
        messages={8: [message()]},
        active=dict.fromkeys((7, 8, 9), True),
        device_keys={n: device_key(n) for n in (7, 8, 9)},
    )
    batch = build_batch([claimed(7), claimed(8), claimed(9)], three)
    states = pb.SealStatesReply(
        parts=[2, 0, 1],
        sections=[b"1 of 2", b"2 of 2", b"only"],
        refusals=[pb.Refusal(place=1, code="not_sealed_here", error="moved")],
    )
    finished, refused = read_reply(batch, states, [pb.Sealed(sections=[b"message"])])
    assert refused == {8: "not_sealed_here: moved"}
    written = {done.claimed.device_id: [emm.sections for emm in done.emms] for done in finished}
    assert written == {7: [[b"1 of 2", b"2 of 2"]], 9: [[b"only"]]}


def test_an_answer_too_few_is_our_fault_and_loud() -> None:
    """Never match an answer to the wrong box."""
    batch = build_batch([claimed()], orders())
    with pytest.raises(ValueError, match="zip"):
        read_reply(batch, pb.SealStatesReply(), [])
