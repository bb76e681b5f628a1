"""The vendor's key file: what is wrong is named by its line, and never the key."""

import pytest

from portcullis.store.keyfile import VendorKeyFileError, parse_vendor_key_file

KEY = "00112233445566778899aabbccddeeff"


def test_keys_are_read_with_or_without_a_header() -> None:
    """Blank lines are passed over."""
    plain = [f"7,{KEY}", "", f"8,{KEY}{KEY}"]
    expected = [(7, bytes.fromhex(KEY)), (8, bytes.fromhex(KEY * 2))]
    assert list(parse_vendor_key_file(plain)) == expected
    assert list(parse_vendor_key_file(["device_id,key_hex\n", *plain])) == expected


@pytest.mark.parametrize("bad", [f"0,{KEY}", f"x,{KEY}", f"{2**40},{KEY}", "7,zz", "7,0011", KEY])
def test_a_wrong_line_is_named_without_its_key(bad: str) -> None:
    """Line, and what is expected."""
    with pytest.raises(VendorKeyFileError, match=r"line 2: .*expected") as caught:
        list(parse_vendor_key_file([f"7,{KEY}", bad]))
    assert KEY not in str(caught.value)
