"""The sealer: what boxes can open of it, and what it refuses."""

import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

from portcullis.emm import (
    OPEN_END,
    EmmHeader,
    Kind,
    Message,
    State,
    Withdrawal,
    chain_key,
    derive_kek,
    open_set,
)
from portcullis.encryptor.custodian import (
    KeyRequestError,
    make_chain,
    open_key,
    rewrap,
    seal_device_key,
)
from portcullis.encryptor.sealer import Sealer
from portcullis.keys import Custody, KeyRing, MasterKey
from portcullis.runtime.rpc import encryptor_pb2 as pb

NOW = 1_800_000_000
CAS = 0xFFF0
DEVICE = 0x0102030405
DEVICE_KEY = bytes(range(16))
CUSTODY = Custody(KeyRing([MasterKey("m1", b"\1" * 32)]))


def device_key(device_id: int = DEVICE) -> pb.SealedKey:
    """Device key."""
    return seal_device_key(CUSTODY, device_id, DEVICE_KEY)


def chain(product_id: int = 7, first: int = 1, last: int = 64) -> pb.SealedKey:
    """Chain."""
    return make_chain(
        CUSTODY, pb.MakeChainRequest(product_id=product_id, first_epoch=first, last_epoch=last)
    )


def state_item(**changes: object) -> pb.SealItem:
    """State item."""
    values: dict[str, object] = {
        "address": DEVICE,
        "epoch": 0,
        "number": NOW,
        "device_key": device_key(),
        "state": pb.State(
            active=True, utc=NOW, entitlements=[pb.Entitlement(product_id=7, epoch=3, key=0)]
        ),
    }
    return pb.SealItem(**(values | changes))  # type: ignore[arg-type]


def seal(item: pb.SealItem, *product_keys: pb.SealedKey) -> pb.Sealed:
    """Seal."""
    request = pb.SealRequest(ca_system_id=CAS, product_keys=product_keys, items=[item])
    return Sealer(CUSTODY, lambda: NOW).seal(request)[0].items[0]


def opened(sections: list[bytes]) -> bytes:
    """Opened."""
    return open_set(derive_kek(DEVICE_KEY, CAS, DEVICE, 0), sections)


def test_a_sealed_state_opens_with_the_device_key_and_holds_the_epochs_key() -> None:
    """A sealed state opens with the device key and holds the epochs key."""
    product = chain()
    reply = seal(state_item(), product)
    state = State.from_payload(opened(list(reply.sections)))
    assert (state.active, state.utc) == (True, NOW)
    (record,) = state.entitlements
    assert (record.product_id, record.epoch, record.ends_at) == (7, 3, OPEN_END)
    assert record.key == chain_key(open_key(CUSTODY, product), 7, 64, 3)


@pytest.mark.parametrize(("starts_at", "kept"), [(NOW - 1, None), (NOW, None), (NOW + 1, NOW + 1)])
def test_a_start_is_on_air_only_while_it_lies_ahead(starts_at: int, kept: int | None) -> None:
    """A start is on air only while it lies ahead."""
    entitlement = pb.Entitlement(product_id=7, epoch=3, starts_at=starts_at, ends_at=NOW + 60)
    item = state_item(state=pb.State(active=True, utc=NOW, entitlements=[entitlement]))
    state = State.from_payload(opened(list(seal(item, chain()).sections)))
    assert state.entitlements[0].starts_at == kept
    assert state.entitlements[0].ends_at == NOW + 60


def test_a_message_is_one_section_a_segment_each_under_a_key_of_its_own() -> None:
    """A message is one section a segment each under a key of its own."""
    text = "Grüße " * 50
    message = pb.ScreenMessage(text=text, duration_s=10, position=1, priority=2, expires_at=NOW)
    reply = seal(state_item(number=99, message=message))
    segments = [Message.from_payload(opened([section])) for section in reply.sections]
    assert "".join(segment.text for segment in segments) == text
    assert [segment.segment for segment in segments] == list(range(1, len(segments) + 1))
    headers = [EmmHeader.from_section(section) for section in reply.sections]
    assert {(h.kind, h.part, h.parts, h.number) for h in headers} == {(Kind.MESSAGE, 1, 1, 99)}
    assert len({section[16:40] for section in reply.sections}) == len(reply.sections)


def test_a_withdrawal_names_the_message_and_its_expiry() -> None:
    """A withdrawal names the message and its expiry."""
    reply = seal(state_item(number=99, withdrawal=pb.Withdrawal(expires_at=NOW + 5)))
    assert Withdrawal.from_payload(opened(list(reply.sections))) == Withdrawal(NOW + 5)


def relabelled(key: pb.SealedKey, **changes: object) -> pb.SealedKey:
    """Relabelled."""
    copy = pb.SealedKey()
    copy.CopyFrom(key)
    for name, value in changes.items():
        setattr(copy, name, value)
    return copy


def entitled(**values: int) -> pb.SealItem:
    """Entitled."""
    entitlement = pb.Entitlement(**({"product_id": 7, "epoch": 3, "key": 0} | values))  # type: ignore[arg-type]
    return state_item(state=pb.State(active=True, utc=NOW, entitlements=[entitlement]))


STRANGER = Custody(KeyRing([MasterKey("m1", b"\7" * 32)]))
REFUSALS = {
    "another box's key": ("wrong_owner", state_item(device_key=device_key(5)), chain()),
    "a box's key relabelled for this one": (
        "not_sealed_here",
        state_item(device_key=relabelled(device_key(5), owner=DEVICE)),
        chain(),
    ),
    "a product key for a box": (
        "wrong_owner",
        state_item(device_key=relabelled(chain(), owner=DEVICE)),
        chain(),
    ),
    "a product key relabelled as this box's": (
        "not_sealed_here",
        state_item(epoch=3, device_key=relabelled(chain(), owner=DEVICE, purpose=1)),
        chain(),
    ),
    "a key of another master": (
        "not_sealed_here",
        state_item(device_key=seal_device_key(STRANGER, DEVICE, DEVICE_KEY)),
        chain(),
    ),
    "another product's key": ("wrong_owner", state_item(), chain(8)),
    "another product's key relabelled": (
        "not_sealed_here",
        state_item(),
        relabelled(chain(8), owner=7),
    ),
    "a device key for a product": ("wrong_owner", state_item(), device_key(7)),
    "a device key relabelled as a product's": (
        "not_sealed_here",
        state_item(),
        relabelled(device_key(7), purpose=2),
    ),
    "a chain stretched": (
        "not_sealed_here",
        entitled(epoch=65),
        relabelled(chain(), last_epoch=70),
    ),
    "an epoch above the chain": ("invalid", entitled(epoch=65), chain()),
    "an epoch below the chain": ("invalid", entitled(epoch=1), chain(first=2)),
    "a key that is not in the call": ("invalid", entitled(key=1), chain()),
    "a sequence a day ahead": ("sequence_ahead", state_item(number=NOW + 86_401), chain()),
    "an end before 1970": ("invalid", entitled(ends_at=-1), chain()),
    "no content": ("invalid", pb.SealItem(address=DEVICE, device_key=device_key()), chain()),
    "a device epoch out of range": ("invalid", state_item(epoch=65536), chain()),
    "a number out of range": (
        "invalid",
        state_item(number=2**32, withdrawal=pb.Withdrawal(expires_at=1)),
        chain(),
    ),
    "a message position out of range": (
        "invalid",
        state_item(message=pb.ScreenMessage(text="x", position=256)),
        chain(),
    ),
    "too many entitlements": (
        "too_large",
        state_item(
            state=pb.State(
                active=True, utc=NOW, entitlements=[pb.Entitlement(product_id=7, epoch=3)] * 200
            )
        ),
        chain(),
    ),
}


@pytest.mark.parametrize(("code", "item", "product"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_refused_has_a_code_a_reason_and_no_section(
    code: str, item: pb.SealItem, product: pb.SealedKey
) -> None:
    """What is refused has a code a reason and no section."""
    reply = seal(item, product)
    assert (reply.code, list(reply.sections)) == (code, [])
    assert reply.error
    assert DEVICE_KEY.hex() not in reply.error


def test_a_sequence_a_day_ahead_is_still_sealed_and_a_message_id_is_no_time() -> None:
    """A sequence a day ahead is still sealed and a message id is no time."""
    assert seal(state_item(number=NOW + 86_400), chain()).sections
    far = state_item(number=NOW + 10**6, withdrawal=pb.Withdrawal(expires_at=1))
    assert seal(far).sections


def test_a_refused_item_leaves_its_neighbours_alone() -> None:
    """A refused item leaves its neighbours alone."""
    items = [state_item(), state_item(address=1), state_item(number=NOW + 1)]
    request = pb.SealRequest(ca_system_id=CAS, product_keys=[chain()], items=items)
    reply, refused = Sealer(CUSTODY, lambda: NOW).seal(request)
    assert [bool(item.sections) for item in reply.items] == [True, False, True]
    assert refused == [1]


def test_the_cache_of_keys_never_lends_one_box_the_key_of_another() -> None:
    """The cache of keys never lends one box the key of another."""
    sealer = Sealer(CUSTODY, lambda: NOW)
    key = device_key()
    good = state_item(device_key=key)
    moved = state_item(address=9, device_key=relabelled(key, owner=9))
    request = pb.SealRequest(ca_system_id=CAS, product_keys=[chain()], items=[good, good, moved])
    reply, _ = sealer.seal(request)
    assert [item.code for item in reply.items] == ["", "", "not_sealed_here"]
    assert sealer.cache_counts() == (1, 2)


def test_what_is_kept_opened_is_dropped_when_a_master_changes() -> None:
    """The next state opens its keys anew."""
    sealer = Sealer(CUSTODY, lambda: NOW)
    request = pb.SealRequest(ca_system_id=CAS, product_keys=[chain()], items=[state_item()])
    sealer.seal(request)
    sealer.seal(request)
    assert sealer.cache_counts() == (1, 1)
    sealer.forget()
    sealer.seal(request)
    assert sealer.cache_counts() == (1, 2)


def test_no_data_encryption_key_is_given_out_twice() -> None:
    """Not within a call, not for the segments of one message, not in the next call."""
    sealer = Sealer(CUSTODY, lambda: NOW)
    items = [state_item(), state_item(message=pb.ScreenMessage(text="x" * 500))] * 50
    request = pb.SealRequest(ca_system_id=CAS, product_keys=[chain()], items=items)
    kek = derive_kek(DEVICE_KEY, CAS, DEVICE, 0)
    replies = [item for _ in range(2) for item in sealer.seal(request)[0].items]
    sections = [section for item in replies for section in item.sections]
    deks = [aes_key_unwrap(kek, section[16:40]) for section in sections]
    assert len(set(deks)) == len(deks) == 2 * 50 * (1 + 5)


def test_a_chain_is_bounded_and_its_epochs_are_in_order() -> None:
    """A chain is bounded and its epochs are in order."""
    for product_id, first, last in [(0, 1, 2), (65536, 1, 2), (1, 0, 2), (1, 3, 2), (1, 1, 129)]:
        with pytest.raises(KeyRequestError):
            chain(product_id, first, last)
    assert chain(1, 1, 128).last_epoch == 128


def test_rewrapping_moves_a_key_to_the_current_master_and_answers_each_on_its_own() -> None:
    """Rewrapping moves a key to the current master and answers each on its own."""
    newer = Custody(KeyRing([MasterKey("m2", b"\2" * 32), MasterKey("m1", b"\1" * 32)]))
    old = device_key()
    moved = rewrap(newer, old)
    assert moved.key.master_id == "m2"
    assert open_key(newer, moved.key) == DEVICE_KEY
    assert rewrap(newer, relabelled(old, owner=3)).error
