"""CRC-32/MPEG-2 against published values."""

import pytest

from dvbwire.crc import crc32_mpeg2


def test_the_published_check_value_comes_out() -> None:
    """The check value every catalogue of CRCs lists for CRC-32/MPEG-2."""
    assert crc32_mpeg2(b"123456789") == 0x0376E6E7


def test_nothing_at_all_leaves_the_preset() -> None:
    """The register starts as ones and no final inversion follows."""
    assert crc32_mpeg2(b"") == 0xFFFFFFFF


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_section_with_its_checksum_gives_zero(kind: type) -> None:
    """A PAT as broadcast: one programme 1 on PID 0x1000, transport_stream_id 1."""
    section = bytes.fromhex("00b00d0001c100000001f000" + "2ab104b2")
    assert crc32_mpeg2(kind(section)) == 0
