"""States in columns: sealed and refused as those that come one by one."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portcullis.emm import MAX_ENTITLEMENTS, OPEN_END, State, derive_kek, open_set
from portcullis.encryptor.sealer import Sealer
from portcullis.encryptor.states import ColumnsError
from portcullis.runtime.rpc import encryptor_pb2 as pb
from tests.unit.test_encryptor_sealer import (
    CAS,
    CUSTODY,
    DEVICE,
    DEVICE_KEY,
    NOW,
    REFUSALS,
    chain,
    device_key,
    relabelled,
    state_item,
)

PRODUCTS = [chain(7), chain(8, 10, 20)]


def in_columns(
    items: Sequence[pb.SealItem], product_keys: Sequence[pb.SealedKey]
) -> pb.SealStatesRequest:
    """What `Seal` would be asked, as `SealStates` is."""
    request = pb.SealStatesRequest(
        ca_system_id=CAS, utc=items[0].state.utc, product_keys=product_keys
    )
    for item in items:
        key = item.device_key
        request.device_key_labels.append(len(request.labels))
        request.labels.add(
            first_epoch=key.first_epoch, last_epoch=key.last_epoch, master_id=key.master_id
        )
        request.addresses.append(item.address)
        request.epochs.append(item.epoch)
        request.numbers.append(item.number)
        request.device_keys.append(key.blob)
        request.active.append(item.state.active)
        request.entitlements.append(len(item.state.entitlements))
        for one in item.state.entitlements:
            request.entitlement_grants.append(len(request.grants))
            request.grants.add(product_id=one.product_id, epoch=one.epoch, key=one.key)
            request.entitlement_starts_at.append(one.starts_at)
            request.entitlement_ends_at.append(one.ends_at if one.HasField("ends_at") else 2**40)
    return request


def sealed(request: pb.SealStatesRequest) -> list[list[bytes]]:
    """The sections of each state."""
    reply = Sealer(CUSTODY, lambda: NOW).seal_states(request)
    sections = iter(reply.sections)
    return [[next(sections) for _ in range(parts)] for parts in reply.parts]


def answers(request: pb.SealStatesRequest) -> list[tuple[str, str]]:
    """Code and reason of each state's refusal; empty where there is none."""
    reply = Sealer(CUSTODY, lambda: NOW).seal_states(request)
    refusals = {refusal.place: (refusal.code, refusal.error) for refusal in reply.refusals}
    assert {place for place, parts in enumerate(reply.parts) if not parts} == refusals.keys()
    assert sum(reply.parts) == len(reply.sections)
    return [refusals.get(place, ("", "")) for place in range(len(reply.parts))]


def payload(sections: Sequence[bytes], epoch: int) -> bytes:
    """What the box reads."""
    return open_set(derive_kek(DEVICE_KEY, CAS, DEVICE, epoch), sections)


def test_a_start_that_lies_ahead_is_on_air_beside_what_is_in_force() -> None:
    """Each with its own end and key, of two boxes' states."""
    items = [
        state_item(state=pb.State(active=True, utc=NOW, entitlements=entitlements))
        for entitlements in ([LATER, GOOD, OPEN], [LATER])
    ]
    first, second = [
        State.from_payload(payload(sections, 0)) for sections in sealed(in_columns(items, PRODUCTS))
    ]
    found = [(one.product_id, one.starts_at, one.ends_at) for one in first.entitlements]
    later = (8, NOW + 1, NOW + 9)
    assert found == [(7, None, NOW + 9), (7, None, OPEN_END), later]
    assert len({one.key for one in first.entitlements}) == 3
    assert [(one.product_id, one.starts_at, one.ends_at) for one in second.entitlements] == [later]
    assert second.entitlements[0].key == first.entitlements[2].key


EDGES = [-1, 0, 1, NOW - 1, NOW, NOW + 1, 2**32 - 1, 2**32, 2**40]
ENTITLEMENTS = st.builds(
    pb.Entitlement,
    product_id=st.sampled_from([7, 7, 7, 8, 9]),
    epoch=st.sampled_from([12, 12, 20, 21, 64]),
    starts_at=st.sampled_from([0, 0, *EDGES]),
    ends_at=st.none() | st.sampled_from([NOW + 9, *EDGES]),
    key=st.sampled_from([0, 0, 1, 2]),
)
GOOD = pb.Entitlement(product_id=7, epoch=3, ends_at=NOW + 9)
LATER = pb.Entitlement(product_id=8, epoch=12, starts_at=NOW + 1, ends_at=NOW + 9, key=1)
OPEN = pb.Entitlement(product_id=7, epoch=4)
ITEMS = st.builds(
    lambda epoch, number, entitlements, active: state_item(
        epoch=epoch,
        number=number,
        device_key=KEY,
        state=pb.State(active=active, utc=NOW, entitlements=entitlements),
    ),
    epoch=st.sampled_from([0, 0, 3, 65535, 65536]),
    number=st.sampled_from([NOW, NOW + 86_400, NOW + 86_401, 0, 2**32 - 1, 2**32, 2**64 - 1]),
    entitlements=st.lists(ENTITLEMENTS, max_size=3)
    | st.lists(st.sampled_from([GOOD, LATER, OPEN]), max_size=30)
    | st.integers(0, MAX_ENTITLEMENTS + 2).map(lambda count: [GOOD] * count),
    active=st.booleans(),
)
KEY = device_key()


@given(st.lists(ITEMS, min_size=1, max_size=6))
def test_a_state_in_columns_is_what_it_is_by_itself(items: list[pb.SealItem]) -> None:
    """The same payload under the same header, or refused with the same code, place by place."""
    alone, _ = Sealer(CUSTODY, lambda: NOW).seal(
        pb.SealRequest(ca_system_id=CAS, product_keys=PRODUCTS, items=items)
    )
    request = in_columns(items, PRODUCTS)
    assert answers(request) == [(one.code, one.error) for one in alone.items]
    for item, mine, theirs in zip(items, sealed(request), alone.items, strict=True):
        assert [section[:16] for section in mine] == [section[:16] for section in theirs.sections]
        if mine:
            assert payload(mine, item.epoch) == payload(theirs.sections, item.epoch)


OTHER_CODES = {"another box's key": "not_sealed_here", "a product key for a box": "invalid"}
"""The columns name neither purpose nor owner of a device key: it opens as its state's, or not."""


@pytest.mark.parametrize(
    ("code", "item", "product"),
    [
        pytest.param(OTHER_CODES.get(name, code), item, product, id=name)
        for name, (code, item, product) in REFUSALS.items()
        if item.WhichOneof("content") == "state"
    ],
)
def test_what_is_refused_by_itself_is_refused_in_columns(
    code: str, item: pb.SealItem, product: pb.SealedKey
) -> None:
    """With its code, beside neighbours that are sealed."""
    good = state_item(state=pb.State(active=True, utc=NOW))
    found = answers(in_columns([good, item, good], [product]))
    assert [one for one, _ in found] == ["", code, ""]
    assert DEVICE_KEY.hex() not in found[1][1]


def test_a_time_that_no_state_holds_refuses_every_state() -> None:
    """The columns have one time for all."""
    for utc in (-1, 2**32):
        request = in_columns([state_item(), state_item()], PRODUCTS)
        request.utc = utc
        assert [code for code, _ in answers(request)] == ["invalid", "invalid"]


def test_an_index_that_points_at_nothing_refuses_its_state_alone() -> None:
    """Of a grant or of a label."""
    request = in_columns([state_item(), state_item(), state_item()], PRODUCTS)
    request.device_key_labels[0] = 3
    request.entitlement_grants[2] = 2**32 - 1
    assert [code for code, _ in answers(request)] == ["invalid", "", "invalid"]
    del request.labels[:], request.grants[:]
    assert [code for code, _ in answers(request)] == ["invalid"] * 3


COLUMNS = [
    name
    for name, column in pb.SealStatesRequest.DESCRIPTOR.fields_by_name.items()
    if column.is_repeated and name not in {"product_keys", "grants", "labels"}
]


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_other_lengths_are_refused_as_a_whole(name: str) -> None:
    """Never is a value taken for another state's."""
    for change in (lambda column: column.pop(), lambda column: column.append(column[0])):
        request = in_columns([state_item(), state_item()], PRODUCTS)
        change(getattr(request, name))
        with pytest.raises(ColumnsError):
            Sealer(CUSTODY, lambda: NOW).seal_states(request)


def test_counts_beyond_all_entitlements_are_refused_as_a_whole() -> None:
    """Also where their sum is beyond 32 bits."""
    request = in_columns([state_item(), state_item()], PRODUCTS)
    request.entitlements[:] = [2**32 - 1, 3]
    with pytest.raises(ColumnsError):
        Sealer(CUSTODY, lambda: NOW).seal_states(request)


def test_no_states_at_all_are_sealed_to_nothing() -> None:
    """An empty call is answered."""
    reply = Sealer(CUSTODY, lambda: NOW).seal_states(pb.SealStatesRequest())
    assert reply == pb.SealStatesReply()


@pytest.mark.parametrize("count", [0, 5, MAX_ENTITLEMENTS, MAX_ENTITLEMENTS + 1])
def test_no_data_encryption_key_is_given_out_twice_to_states(count: int) -> None:
    """Not within a call, not in the next: the wrapped keys of one box all differ."""
    item = state_item(state=pb.State(active=True, utc=NOW, entitlements=[GOOD] * count))
    request = in_columns([item] * 20, PRODUCTS)
    sealer = Sealer(CUSTODY, lambda: NOW)
    sections = [one for _ in range(2) for one in sealer.seal_states(request).sections]
    wrapped = {section[16:40] for section in sections if section[9] >> 4 == 1}
    assert len(wrapped) == 40
    hits, misses = sealer.cache_counts()
    assert (hits >= 20, hits + misses) == (True, 40)


def test_the_cache_never_lends_a_state_in_columns_the_key_of_another_box() -> None:
    """The row of one box, moved to another, is looked up as that one's."""
    moved = state_item(address=9, device_key=relabelled(KEY, owner=9))
    good = state_item(device_key=KEY)
    found = answers(in_columns([good, good, moved], PRODUCTS))
    assert [code for code, _ in found] == ["", "", "not_sealed_here"]
