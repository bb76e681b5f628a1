"""What is sealed opens again, and nothing else does; the primitives keep published vectors."""

import os
import re
import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from hypothesis import given
from hypothesis import strategies as st

from portcullis.emm import (
    MAX_ENTITLEMENTS,
    EmmError,
    EmmHeader,
    EmmSet,
    EmmTooLargeError,
    EntitlementRecord,
    Kind,
    Message,
    State,
    chain_key,
    derive_kek,
    open_set,
    seal_set,
    seal_sets,
    segment_text,
    set_of,
)
from portcullis.emm.envelope import split_payload

KEK = bytes(range(32))
DEK = bytes(range(16))


def test_key_wrap_keeps_rfc_3394_4_3() -> None:
    """RFC 3394 4.3: wrap 128 bits of key data with a 256-bit KEK."""
    wrapped = aes_key_wrap(
        bytes.fromhex("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"),
        bytes.fromhex("00112233445566778899AABBCCDDEEFF"),
    )
    assert wrapped.hex() == "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7"


def test_gcm_keeps_the_nist_vector_with_additional_data() -> None:
    """NIST GCM specification, test case 4: AES-128, 60-byte plaintext, 20-byte AAD."""
    sealed = AESGCM(bytes.fromhex("feffe9928665731c6d6a8f9467308308")).encrypt(
        bytes.fromhex("cafebabefacedbaddecaf888"),
        bytes.fromhex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ),
        bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
    )
    assert sealed.hex() == (
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
        "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
        "5bc94fbc3221a5db94fae95ae7121a47"
    )


records = st.builds(
    EntitlementRecord,
    product_id=st.integers(1, 65535),
    epoch=st.integers(0, 255),
    ends_at=st.integers(0, 2**32 - 1),
    key=st.binary(min_size=16, max_size=16),
    starts_at=st.none() | st.integers(0, 2**32 - 1),
)
states = st.builds(
    State,
    active=st.booleans(),
    utc=st.integers(0, 2**32 - 1),
    entitlements=st.lists(records, max_size=MAX_ENTITLEMENTS).map(tuple),
)


@given(states)
def test_a_state_is_read_back_as_it_was(state: State) -> None:
    """Entitlements in force come before those that start later; nothing else changes."""
    read = State.from_payload(state.to_payload())
    assert (read.active, read.utc) == (state.active, state.utc)
    in_order = sorted(state.entitlements, key=lambda r: r.starts_at is not None)
    assert list(read.entitlements) == in_order


@given(states, st.integers(1, 2**40 - 1), st.integers(0, 65535), st.integers(0, 2**32 - 1))
def test_what_is_sealed_opens(state: State, address: int, epoch: int, number: int) -> None:
    """Every set fits sections of 256 bytes and opens with its key encryption key."""
    payload = state.to_payload()
    sections = seal_set(
        KEK, DEK, address=address, kind=Kind.STATE, epoch=epoch, number=number, payload=payload
    )
    assert all(len(section) <= 256 for section in sections)
    assert open_set(KEK, sections) == payload
    header = EmmHeader.from_section(sections[-1])
    assert (header.address, header.epoch, header.number) == (address, epoch, number)
    assert header.part == header.parts == len(sections)


def one_by_one(one: EmmSet, dek: bytes) -> list[bytes]:
    """The same set by the document alone: a part at a time, nothing shared."""
    sections = []
    shares = split_payload(one.payload)
    for part, share in enumerate(shares, start=1):
        wrapped = aes_key_wrap(one.kek, dek) if part == 1 else b""
        length = 13 + len(wrapped) + len(share) + 16
        place = bytes((part << 4 | len(shares),))
        numbers = one.epoch.to_bytes(2) + one.number.to_bytes(4)
        address = one.address.to_bytes(5)
        header = b"\x82" + (0x7000 | length).to_bytes(2) + address + bytes((0x10 | one.kind,))
        header += place + numbers
        nonce = address + numbers + bytes((part,))
        sections.append(header + wrapped + AESGCM(dek).encrypt(nonce, share, header))
    return sections


sets = st.builds(
    set_of,
    st.binary(min_size=32, max_size=32),
    address=st.integers(0, 2**40 - 1),
    kind=st.sampled_from(Kind),
    epoch=st.integers(0, 65535),
    number=st.integers(0, 2**32 - 1),
    payload=st.one_of(st.binary(max_size=130), st.binary(max_size=3336)),
)


@given(st.lists(sets, max_size=8))
def test_a_batch_is_sealed_to_the_same_bytes_as_one_by_one(batch: list[EmmSet]) -> None:
    """Sets of one part and of many, side by side."""
    random = os.urandom(16 * len(batch))
    expected = [one_by_one(one, random[16 * i : 16 * i + 16]) for i, one in enumerate(batch)]
    assert seal_sets(batch, random) == expected


@given(st.binary(max_size=3336))
def test_a_payload_is_cut_to_packets_while_fifteen_will_do(payload: bytes) -> None:
    """Then to sections of 256 bytes; a share more would be a part too many."""
    shares = split_payload(payload)
    assert b"".join(shares) == payload
    assert len(shares) <= 15
    sections = [16 + 24 + len(shares[0]) + 16, *(16 + len(share) + 16 for share in shares[1:])]
    assert max(sections) <= (183 if len(payload) <= 127 + 14 * 151 else 256)
    assert all(share for share in shares[1:])


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_a_batch_wants_a_key_for_each_set(length: int) -> None:
    """Neither shared nor left over."""
    one = set_of(KEK, address=1, kind=Kind.STATE, epoch=0, number=1, payload=b"")
    with pytest.raises(ValueError, match="random bytes"):
        seal_sets([one], bytes(length))


@pytest.mark.parametrize(
    "wrong", [{"address": 2**40}, {"address": -1}, {"epoch": 65536}, {"number": 2**32}]
)
def test_a_value_out_of_its_field_is_refused_alone(wrong: dict[str, int]) -> None:
    """Before the batch is sealed."""
    right = {"address": 1, "epoch": 0, "number": 1}
    with pytest.raises(OverflowError):
        set_of(KEK, kind=Kind.STATE, payload=b"", **(right | wrong))


@given(st.integers(0, 177), st.integers(0, 7))
def test_any_flipped_bit_is_noticed(byte: int, bit: int) -> None:
    """No bit of a section can change without the box noticing."""
    sections = seal_set(
        KEK, DEK, address=7, kind=Kind.STATE, epoch=0, number=9, payload=five_products()
    )
    altered = bytearray(sections[0])
    altered[byte] ^= 1 << bit
    with pytest.raises(EmmError):
        open_set(KEK, [bytes(altered)])


def five_products() -> bytes:
    """The payload of a box with five products."""
    entitlements = tuple(EntitlementRecord(n, 1, 2**31, bytes(16)) for n in range(1, 6))
    return State(active=True, utc=1, entitlements=entitlements).to_payload()


def test_five_products_take_one_packet_of_178_bytes() -> None:
    """The layout is lean: 178 bytes of at most 183."""
    sections = seal_set(
        KEK, DEK, address=7, kind=Kind.STATE, epoch=0, number=9, payload=five_products()
    )
    assert [len(section) for section in sections] == [178]


def test_the_most_entitlements_fit_and_more_do_not_hang() -> None:
    """120 that start later fill fifteen sections; far more are refused."""

    def payload(count: int) -> bytes:
        later = (EntitlementRecord(n, 1, 2**31, bytes(16), starts_at=5) for n in range(1, count))
        return State(active=True, utc=1, entitlements=tuple(later)).to_payload()

    fits = payload(MAX_ENTITLEMENTS + 1)
    sealed = seal_set(KEK, DEK, address=7, kind=Kind.STATE, epoch=0, number=9, payload=fits)
    assert len(sealed) == 15
    with pytest.raises(EmmTooLargeError):
        seal_set(KEK, DEK, address=7, kind=Kind.STATE, epoch=0, number=9, payload=payload(140))


@given(st.binary(max_size=300))
def test_noise_never_opens(noise: bytes) -> None:
    """Whatever comes in, the answer is an EmmError."""
    with pytest.raises(EmmError):
        open_set(KEK, [noise])


@given(st.binary(max_size=400))
def test_noise_is_no_crash_for_the_payload_readers(noise: bytes) -> None:
    """A payload is read, or refused as EmmError."""
    for kind in (State, Message):
        try:
            kind.from_payload(noise)
        except EmmError as error:
            assert str(error)


@given(st.text(min_size=1, max_size=1000))
def test_a_text_is_cut_between_characters(text: str) -> None:
    """Shares are at most 117 bytes and join to the text; 1,000 characters always fit."""
    shares = segment_text(text)
    assert "".join(shares) == text
    assert all(len(share.encode()) <= 117 for share in shares)
    for index, share in enumerate(shares, start=1):
        message = Message(index, len(shares), 10, 0, 0, 2**31, share)
        assert Message.from_payload(message.to_payload()) == message


def test_a_chain_key_opens_downwards_only() -> None:
    """K(e − 1) comes from K(e) in any number of steps; upwards there is no way."""
    top = bytes(range(16))
    assert chain_key(top, 101, 9, 9) == top
    assert chain_key(chain_key(top, 101, 9, 7), 101, 7, 4) == chain_key(top, 101, 9, 4)
    assert chain_key(top, 101, 9, 8) != chain_key(top, 102, 9, 8)
    with pytest.raises(ValueError, match="not within the chain"):
        chain_key(top, 101, 9, 10)


def test_each_box_epoch_and_system_has_its_own_kek() -> None:
    """The KEK binds the box, its epoch and the CA system."""
    base = derive_kek(bytes(16), 1, 2, 3)
    others = [derive_kek(bytes(16), *args) for args in ((9, 2, 3), (1, 9, 3), (1, 2, 9))]
    assert len({base, *others}) == 4


@given(
    st.binary(min_size=16, max_size=32),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**40 - 1),
    st.integers(0, 2**16 - 1),
)
def test_a_kek_is_the_hkdf_of_rfc_5869(
    device_key: bytes, ca_system_id: int, address: int, epoch: int
) -> None:
    """As the library's own HKDF makes it, without a salt."""
    info = b"portcullis emm kek v1" + struct.pack(
        ">HBIH", ca_system_id, address >> 32, address % 2**32, epoch
    )
    expected = HKDF(SHA256(), 32, None, info).derive(device_key)
    assert derive_kek(device_key, ca_system_id, address, epoch) == expected


def test_keys_do_not_show_in_a_representation() -> None:
    """A record that lands in a log names its product, not its key."""
    record = EntitlementRecord(1, 2, 3, bytes.fromhex("00112233445566778899aabbccddeeff"))
    assert not re.search(r"11.?22|\\x11", repr(record))
