"""The chip vendor's key file, line by line (docs/vendor-keys.md). Pure.

CSV `device_id,key_hex`, with or without that header; plain, or encrypted with age.
"""

from portcullis.emm.envelope import MAX_ADDRESS

HEADER = "device_id,key_hex"
KEY_BYTES = range(16, 33)
MAX_LINE_BYTES = 1024
AGE_BEGINNINGS = (b"age-encryption.org/v1", b"-----BEGIN AGE ENCRYPTED FILE-----")


class VendorLineError(ValueError):
    """A line cannot be read: says what is expected, never what is there."""


def parse_line(number: int, line: bytes) -> tuple[int, bytes] | None:
    """Read (device_id, key) of line `number` (from 1); None for the header and an empty line.

    Raises VendorLineError.
    """
    try:
        text = line.decode("utf-8-sig" if number == 1 else "ascii").strip()
    except UnicodeDecodeError:
        raise VendorLineError(f"expected {HEADER}") from None
    if not text or (number == 1 and text == HEADER):
        return None
    device_id, _, key_hex = text.partition(",")
    if not (device_id.isascii() and device_id.isdecimal()) or not (
        1 <= int(device_id) <= MAX_ADDRESS
    ):
        raise VendorLineError("device_id: expected 1 to 2^40 - 1")
    try:
        key = bytes.fromhex(key_hex)
    except ValueError:
        key = b""
    if len(key) not in KEY_BYTES:
        raise VendorLineError("key_hex: expected 16 to 32 bytes in hex")
    return int(device_id), key


class LineCutter:
    """Cuts what is written to it into lines, however it comes."""

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends; raises VendorLineError."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES or b"\0" in data:
            raise VendorLineError("not lines of text: no key file")
        return lines

    def last(self) -> list[bytes]:
        """What came after the last line end, if anything."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []
