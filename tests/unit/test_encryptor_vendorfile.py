"""The vendor's key file: what is wrong is told without the key."""

import pytest

from portcullis.encryptor.vendorfile import LineCutter, VendorLineError, parse_line

KEY = "00112233445566778899aabbccddeeff"


@pytest.mark.parametrize(
    ("number", "line", "expected"),
    [
        (1, b"device_id,key_hex", None),
        (1, b"\xef\xbb\xbfdevice_id,key_hex\r", None),
        (2, b"", None),
        (2, b"  \r", None),
        (1, f"7,{KEY}".encode(), (7, bytes.fromhex(KEY))),
        (9, f"{2**40 - 1},{KEY}{KEY.upper()}\r".encode(), (2**40 - 1, bytes.fromhex(KEY * 2))),
    ],
)
def test_a_line_is_a_device_and_its_key(
    number: int, line: bytes, expected: tuple[int, bytes] | None
) -> None:
    """Header, blank lines, a byte-order mark and carriage returns are no keys."""
    assert parse_line(number, line) == expected


@pytest.mark.parametrize(
    "bad",
    [f"0,{KEY}", f"x,{KEY}", f"{2**40},{KEY}", "7,zz", "7,0011", KEY, f"7,{KEY}é", f"\u0667,{KEY}"],
)
def test_a_wrong_line_is_told_without_its_key(bad: str) -> None:
    """What is expected."""
    with pytest.raises(VendorLineError, match="expected") as caught:
        parse_line(2, bad.encode())
    assert KEY not in str(caught.value)


def test_lines_are_cut_however_they_come() -> None:
    """Byte by byte, and what comes after the last line end."""
    data = b"one\n\ntwo\nthree"
    cutter = LineCutter()
    lines = [line for byte in data for line in cutter.cut(bytes((byte,)))]
    assert [*lines, *cutter.last(), *cutter.last()] == [b"one", b"", b"two", b"three"]
    assert LineCutter().cut(data) == [b"one", b"", b"two"]


def test_what_has_no_line_ends_is_no_key_file() -> None:
    """It is not collected for ever; nor is a program taken for one."""
    for data in (b"x" * 2000, b"one\n\0two\n"):
        with pytest.raises(VendorLineError, match="no key file"):
            LineCutter().cut(data)
