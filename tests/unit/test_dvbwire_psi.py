"""PAT, CAT, PMT, TDT: vectors, round trips, and every reason for refusal."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvbwire.crc import crc32_mpeg2
from dvbwire.errors import DvbWireError
from dvbwire.psi import (
    CaDescriptor,
    Cat,
    Descriptor,
    ElementaryStream,
    Pat,
    Pmt,
    PsiError,
    PsiReason,
    Tdt,
    parse_descriptors,
)

pids = st.integers(0, 0x1FFF)
versions = st.integers(0, 31)
ca_descriptors = st.builds(CaDescriptor, st.integers(0, 0xFFFF), pids, st.binary(max_size=20))
other_descriptors = st.builds(
    Descriptor, st.integers(0, 255).filter(lambda tag: tag != 9), st.binary(max_size=30)
)
loops = st.lists(ca_descriptors | other_descriptors, max_size=6).map(tuple)


def with_crc(section: bytes) -> bytes:
    """Close a hand-made section."""
    return section + crc32_mpeg2(section).to_bytes(4)


def test_a_pat_is_written_as_broadcast() -> None:
    """transport_stream_id 1, version 0, programme 1 on PID 0x1000."""
    assert Pat(1, 0, {1: 0x1000}).to_section().hex() == "00b00d0001c100000001f0002ab104b2"


def test_a_cat_is_written_as_broadcast() -> None:
    """01 CAT, B00F length 15, FFFF reserved, C7 version 3 and current, 00 00, one CA_descriptor.

    The descriptor: 09 tag, 04 length, FFF0 CA_system_id, E0 reserved bits and 0100 the PID.
    """
    section = Cat(3, (CaDescriptor(0xFFF0, 0x100),)).to_section()
    assert section[:-4].hex() == "01b00fffffc70000" + "0904fff0e100"
    assert crc32_mpeg2(section) == 0


def test_a_tdt_is_written_as_the_standard_computes_it() -> None:
    """EN 300 468 Annex C and clause 5.2.5: 1993-10-13 12:45:00 is C079 124500."""
    tdt = Tdt(datetime(1993, 10, 13, 12, 45, tzinfo=UTC))
    assert tdt.to_section().hex() == "707005c079124500"
    assert Tdt.from_section(tdt.to_section()) == tdt


@given(
    st.builds(
        Pat,
        st.integers(0, 0xFFFF),
        versions,
        st.dictionaries(st.integers(0, 0xFFFF), pids, max_size=253),
        st.booleans(),
        st.integers(0, 99),
        st.integers(99, 255),
    )
)
def test_a_pat_comes_back(pat: Pat) -> None:
    """Every field of a PAT."""
    assert Pat.from_section(pat.to_section()) == pat


@given(st.builds(Cat, versions, loops, st.booleans(), st.integers(0, 99), st.integers(99, 255)))
def test_a_cat_comes_back(cat: Cat) -> None:
    """Every field of a CAT."""
    assert Cat.from_section(cat.to_section()) == cat


@given(
    st.integers(0, 0xFFFF),
    versions,
    pids,
    loops,
    st.lists(st.builds(ElementaryStream, st.integers(0, 255), pids, loops), max_size=3).map(tuple),
)
def test_a_pmt_comes_back(
    number: int,
    version: int,
    pcr_pid: int,
    descriptors: tuple[Descriptor | CaDescriptor, ...],
    streams: tuple[ElementaryStream, ...],
) -> None:
    """Every field of a PMT."""
    pmt = Pmt(number, version, pcr_pid, descriptors, streams)
    assert Pmt.from_section(pmt.to_section()) == pmt


@given(st.datetimes(datetime(1858, 11, 17), datetime(2038, 4, 22, 23, 59, 59)))  # noqa: DTZ001 (hypothesis wants naive bounds)
def test_a_tdt_comes_back_to_the_second(moment: datetime) -> None:
    """Fractions are cut off; the zone given does not matter."""
    utc = moment.replace(tzinfo=UTC)
    elsewhere = utc.astimezone(timezone(timedelta(hours=5, minutes=30)))
    read = Tdt.from_section(Tdt(elsewhere).to_section())
    assert read.utc == utc.replace(microsecond=0)
    assert read.utc.tzinfo is UTC


def test_a_tot_tells_the_time_too() -> None:
    """0x73, UTC_time, an empty descriptor loop, CRC_32."""
    tot = with_crc(bytes.fromhex("73700b" + "c079124500" + "f000"))
    assert Tdt.from_section(tot).utc == datetime(1993, 10, 13, 12, 45, tzinfo=UTC)
    with pytest.raises(PsiError) as caught:
        Tdt.from_section(tot[:-1] + bytes((tot[-1] ^ 1,)))
    assert caught.value.reason is PsiReason.CRC


GOOD_PAT = Pat(1, 0, {1: 0x1000}).to_section()
GOOD_TDT = bytes.fromhex("707005c079124500")


@pytest.mark.parametrize(
    ("table", "section", "reason"),
    [
        (Pat, b"", PsiReason.LENGTH),
        (Pat, GOOD_PAT[:-1], PsiReason.LENGTH),
        (Pat, GOOD_PAT + b"\xff", PsiReason.LENGTH),
        (Cat, GOOD_PAT, PsiReason.TABLE_ID),
        (Pmt, GOOD_PAT, PsiReason.TABLE_ID),
        (Pat, GOOD_PAT[:-1] + b"\x00", PsiReason.CRC),
        (Pat, bytes.fromhex("00300d0001c100000001f0002ab104b2"), PsiReason.SYNTAX),
        (Pat, with_crc(bytes.fromhex("00b00b0001c10000") + b"ab"), PsiReason.LENGTH),
        (Cat, with_crc(bytes.fromhex("01b00bffffc10000") + b"\x09\x00"), PsiReason.LENGTH),
        (Cat, with_crc(bytes.fromhex("01b00bffffc10000") + b"\x10\x09"), PsiReason.LENGTH),
        (Cat, with_crc(bytes.fromhex("01b00affffc10000") + b"\x10"), PsiReason.LENGTH),
        (Pmt, with_crc(bytes.fromhex("02b0090001c10000")), PsiReason.LENGTH),
        (Pmt, with_crc(bytes.fromhex("02b00d0001c10000e100f001")), PsiReason.LENGTH),
        (Pmt, with_crc(bytes.fromhex("02b00e0001c10000e100f00002")), PsiReason.LENGTH),
        (Tdt, b"", PsiReason.LENGTH),
        (Tdt, b"\x71" + GOOD_TDT[1:], PsiReason.TABLE_ID),
        (Tdt, GOOD_TDT[:-1], PsiReason.LENGTH),
        (Tdt, bytes.fromhex("707005ffffffffff"), PsiReason.VALUE),
        (Tdt, bytes.fromhex("707005c079240000"), PsiReason.VALUE),
        (Tdt, bytes.fromhex("707005c079126000"), PsiReason.VALUE),
        (Tdt, bytes.fromhex("707005c07912450a"), PsiReason.VALUE),
        (Tdt, bytes.fromhex("73700b") + bytes(2), PsiReason.LENGTH),
    ],
)
def test_a_section_that_cannot_be_used_says_why(
    table: type[Pat | Cat | Pmt | Tdt], section: bytes, reason: PsiReason
) -> None:
    """Each check of a reader, by its reason."""
    with pytest.raises(PsiError) as caught:
        table.from_section(section)
    assert caught.value.reason is reason
    assert isinstance(caught.value, DvbWireError)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (Pat(1, 0, dict.fromkeys(range(254), 1)), PsiReason.LENGTH),
        (Pat(1, 32, {}), PsiReason.VALUE),
        (Pat(65536, 0, {}), PsiReason.VALUE),
        (Pat(1, 0, {1: 0x2000}), PsiReason.VALUE),
        (Pat(1, 0, {65536: 1}), PsiReason.VALUE),
        (Pat(1, 0, {}, section_number=1), PsiReason.VALUE),
        (Cat(0, (Descriptor(1, bytes(256)),)), PsiReason.LENGTH),
        (Cat(0, (CaDescriptor(1, 0x2000),)), PsiReason.VALUE),
        (Cat(0, (CaDescriptor(65536, 1),)), PsiReason.VALUE),
        (Cat(0, (CaDescriptor(1, 1, bytes(252)),)), PsiReason.LENGTH),
        (Pmt(1, 0, 1, streams=(ElementaryStream(256, 1),)), PsiReason.VALUE),
        (Tdt(datetime(2038, 4, 23, tzinfo=UTC)), PsiReason.VALUE),
        (Tdt(datetime(2026, 1, 1)), PsiReason.VALUE),  # noqa: DTZ001 (the naive time is the point)
    ],
)
def test_a_table_that_cannot_be_written_says_why(
    table: Pat | Cat | Pmt | Tdt, reason: PsiReason
) -> None:
    """Values out of range and tables too long for one section."""
    with pytest.raises(PsiError) as caught:
        table.to_section()
    assert caught.value.reason is reason


@given(st.binary(max_size=80))
def test_noise_is_refused_with_a_reason_or_read(noise: bytes) -> None:
    """No bytes make a reader raise anything else, not even with a right checksum."""
    for section in (noise, with_crc(noise)):
        for table in (Pat, Cat, Pmt, Tdt):
            try:
                table.from_section(section)
            except PsiError as error:
                assert error.reason in PsiReason


@given(st.binary(max_size=80))
def test_descriptor_loops_from_noise(noise: bytes) -> None:
    """A loop either comes back as it was, reserved bits aside, or is refused."""
    try:
        found = parse_descriptors(noise)
    except PsiError as error:
        assert error.reason is PsiReason.LENGTH
    else:
        assert sum(len(descriptor.to_bytes()) for descriptor in found) == len(noise)
