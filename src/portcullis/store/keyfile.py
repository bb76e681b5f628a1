"""The chip vendor's key file: CSV `device_id,key_hex`, with or without that header."""

from collections.abc import Iterable, Iterator

from portcullis.emm.envelope import MAX_ADDRESS
from portcullis.runtime.errors import PortcullisError

_KEY_BYTES = range(16, 33)


class VendorKeyFileError(PortcullisError):
    """A line cannot be read: says which line and what is expected, never the key."""

    exit_code = 2


def parse_vendor_key_file(lines: Iterable[str]) -> Iterator[tuple[int, bytes]]:
    """Read (device_id, key) pairs; raises VendorKeyFileError at the first line that is wrong."""
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or (number == 1 and text == "device_id,key_hex"):
            continue
        device_id, _, key_hex = text.partition(",")
        try:
            key = bytes.fromhex(key_hex)
        except ValueError:
            key = b""
        if not device_id.isdecimal() or not 1 <= int(device_id) <= MAX_ADDRESS:
            raise VendorKeyFileError(f"line {number}: device_id: expected 1 to 2^40 - 1")
        if len(key) not in _KEY_BYTES:
            raise VendorKeyFileError(f"line {number}: key_hex: expected 16 to 32 bytes in hex")
        yield int(device_id), key
