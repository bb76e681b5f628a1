"""A section field by field is what was sealed, and damage is shown where it is."""

import os
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from portcullis.emm import (
    DEK_BYTES,
    OPEN_END,
    EmmHeader,
    EntitlementRecord,
    Field,
    Kind,
    Message,
    State,
    Withdrawal,
    dissect_payload,
    dissect_section,
    seal_set,
    seal_sets,
    set_of,
)

KEK = bytes(range(32))
KEY = bytes.fromhex("c0ffee00c0ffee00c0ffee00c0ffee00")
NUMBER = 1_770_000_000
UTC = "2026-02-02 02:40:00Z"

records = st.builds(
    EntitlementRecord,
    product_id=st.integers(1, 65535),
    epoch=st.integers(0, 255),
    ends_at=st.integers(0, 2**32 - 1),
    key=st.just(KEY),
    starts_at=st.none() | st.integers(0, 2**32 - 1),
)
states = st.builds(
    State,
    active=st.booleans(),
    utc=st.integers(0, 2**32 - 1),
    entitlements=st.lists(records, max_size=40).map(tuple),
)
sets = st.builds(
    set_of,
    st.just(KEK),
    address=st.integers(1, 2**40 - 1),
    kind=st.just(Kind.STATE),
    epoch=st.integers(0, 2**16 - 1),
    number=st.integers(0, 2**32 - 1),
    payload=states.map(State.to_payload),
) | st.builds(
    set_of,
    st.just(KEK),
    address=st.integers(1, 2**40 - 1),
    kind=st.sampled_from((Kind.MESSAGE, Kind.WITHDRAWAL)),
    epoch=st.integers(0, 2**16 - 1),
    number=st.integers(0, 2**32 - 1),
    payload=st.binary(min_size=4, max_size=127),
)


def state_section(*, later: bool = False) -> bytes:
    """One that is whole."""
    record = EntitlementRecord(101, 3, OPEN_END, KEY, NUMBER if later else None)
    return seal_set(
        KEK,
        bytes(DEK_BYTES),
        address=4_800_000_007,
        kind=Kind.STATE,
        epoch=1,
        number=NUMBER,
        payload=State(True, NUMBER, (record,)).to_payload(),
    )[0]


def values(fields: Sequence[Field], group: str = "") -> dict[str, int | None]:
    """The numbers by name."""
    return {one.name: one.value for one in fields if one.group == group}


def bits_of(data: bytes) -> str:
    """Every bit as a digit."""
    return "".join(f"{byte:08b}" for byte in data)


def joined(fields: Sequence[Field]) -> str:
    """The bits that the fields were read from, one behind the other."""
    bits = ""
    for one in fields:
        assert one.bit == len(bits)
        assert one.hex is not None
        bits += f"{int(one.hex, 16):0{one.bits}b}" if one.bits else ""
    return bits


@given(st.lists(sets, min_size=1, max_size=5))
def test_what_seal_sets_makes_is_read_back(several: list[tuple[object, ...]]) -> None:
    """Every field of every part, without a gap, without a fault."""
    sealed = seal_sets(several, os.urandom(DEK_BYTES * len(several)))  # type: ignore[arg-type] # hypothesis loses the type
    for sections in sealed:
        for section in sections:
            found = dissect_section(section)
            assert found.faults == ()
            assert joined(found.fields) == bits_of(section)
            header = EmmHeader.from_section(section)
            read = values(found.fields)
            assert read["table_id"] == 0x82
            assert read["section_syntax_indicator"] == 0
            assert read["section_length"] == len(section) - 3
            assert read["version"] == 1
            for name in ("address", "kind", "part", "parts", "epoch", "number"):
                assert read[name] == getattr(header, name)
            names = [one.name for one in found.fields]
            assert ("wrapped DEK" in names) == (header.part == 1)
            assert names[-2:] == ["ciphertext", "tag"]


@given(states)
def test_a_state_is_read_without_its_keys(state: State) -> None:
    """Status, time, and of each entitlement all but the key."""
    found = dissect_payload(Kind.STATE, state.to_payload())
    assert found.faults == ()
    assert values(found.fields)["status"] == state.active
    assert values(found.fields)["UTC"] == state.utc
    in_order = sorted(state.entitlements, key=lambda one: one.starts_at is not None)
    for number, record in enumerate(in_order, start=1):
        want = {"product_id": record.product_id, "product epoch": record.epoch}
        want |= {} if record.starts_at is None else {"start": record.starts_at}
        assert values(found.fields, f"entitlement {number}") == want | {
            "end": record.ends_at,
            "key": None,
        }
    assert KEY.hex() not in repr(found)


@given(states, st.data())
def test_damage_neither_ends_the_reading_nor_shows_a_key(state: State, data: st.DataObject) -> None:
    """A payload cut anywhere, with a byte altered anywhere."""
    payload = bytearray(state.to_payload())
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(0, 255))
    cut = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    assert KEY.hex() not in repr(dissect_payload(Kind.STATE, cut))


@given(st.binary(max_size=300), st.sampled_from(Kind))
def test_any_bytes_are_read_as_far_as_they_go(data: bytes, kind: Kind) -> None:
    """A section's fields follow one another from the first bit; a payload raises nothing."""
    found = dissect_section(data)
    read = joined(found.fields)
    assert bits_of(data).startswith(read)
    assert found.faults or read == bits_of(data)
    dissect_payload(kind, data)


def test_meanings_are_those_of_the_document() -> None:
    """docs/emm-format.md: a sequence is a time, open ends, a start that lies ahead."""
    meanings = {one.name: one.meaning for one in dissect_section(state_section()).fields}
    assert meanings["number"] == f"sequence; as a time {UTC}"
    assert meanings["address"] == "device 4800000007"
    assert meanings["ciphertext"] == "AES-128-GCM, 30 bytes: state"
    record = EntitlementRecord(101, 3, OPEN_END, KEY, NUMBER)
    payload = State(True, NUMBER, (record,)).to_payload()
    inner = {one.name: one.meaning for one in dissect_payload(Kind.STATE, payload).fields}
    assert inner["UTC"] == f"sealed {UTC}"
    assert inner["TLV type"] == "entitlements that start later"
    assert (inner["start"], inner["end"]) == (f"from {UTC}", "no end")


def test_a_message_and_its_withdrawal() -> None:
    """A text cannot steer the terminal it is shown on."""
    message = Message(1, 1, 0, 3, 5, NUMBER, "Grüße\x1b[2J\x9b")
    found = {one.name: one for one in dissect_payload(Kind.MESSAGE, message.to_payload()).fields}
    assert found["text"].meaning == r"'Grüße\x1b[2J\x9b'"
    assert found["duration"].meaning == "until withdrawn"
    assert found["position"].meaning == "bottom"
    [expiry] = dissect_payload(Kind.WITHDRAWAL, Withdrawal(NUMBER).to_payload()).fields
    assert (expiry.value, expiry.meaning) == (NUMBER, f"remembered until {UTC}")


def faults_of(section: bytes) -> list[tuple[int, str]]:
    """Byte and reason of each."""
    return [(one.byte, one.reason) for one in dissect_section(section).faults]


def test_each_fault_of_a_section_is_named_at_its_byte() -> None:
    """What docs/emm-format.md has a box ignore."""
    good = state_section()

    def altered(byte: int, value: int) -> list[tuple[int, str]]:
        return faults_of(good[:byte] + bytes((value,)) + good[byte + 1 :])

    assert faults_of(good) == []
    assert altered(0, 0x84) == [(0, "table_id 0x84, not 0x82: a box ignores it")]
    assert altered(1, 0xF0) == [(1, "section_syntax_indicator is 1: 0 is due")]
    assert altered(2, 0x54) == [
        (1, "section_length announces 87 bytes, there are 86"),
        (71, "ends with 15 of 16 bytes of tag"),
    ]
    assert altered(2, 0x52) == [(1, "section_length announces 85 bytes, there are 86")]
    assert altered(8, 0x21) == [(8, "format version 2 is not known")]
    assert altered(8, 0x14) == [(8, "kind 4 is not known")]
    assert altered(8, 0x12) == []
    assert altered(9, 0x21) == [(9, "part 2 of 1")]
    assert faults_of(good[:12]) == [
        (1, "section_length announces 86 bytes, there are 12"),
        (12, "ends with 0 of 4 bytes of number"),
    ]


def test_each_fault_of_a_payload_is_named_at_its_byte() -> None:
    """A record cut short, a TLV that runs over the end, an unknown status, a text that is none."""
    head = bytes((1,)) + bytes(4)

    def faults(kind: Kind, payload: bytes) -> list[tuple[int, str]]:
        return [(one.byte, one.reason) for one in dissect_payload(kind, payload).faults]

    assert faults(Kind.STATE, b"\x02" + bytes(4)) == [(0, "status 2 is not known")]
    assert faults(Kind.STATE, head + b"\x01\x17" + bytes(22)) == [
        (5, "a TLV of 23 bytes runs over the end, 22 are left")
    ]
    assert faults(Kind.STATE, head + b"\x01\x16" + bytes(22)) == [
        (5, "TLV 0x01 holds records of 23 bytes, not 22")
    ]
    assert faults(Kind.STATE, head + b"\x7f\x02" + bytes(2)) == []
    assert faults(Kind.MESSAGE, b"\x02\x01" + bytes(8) + b"a\xff") == [
        (0, "segment 2 of 1"),
        (11, "text is not UTF-8"),
    ]
    assert faults(Kind.WITHDRAWAL, bytes(5)) == [(4, "1 bytes too many")]
