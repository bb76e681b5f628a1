"""CRC-32/MPEG-2: the checksum that closes long-form sections (ISO/IEC 13818-1 Annex A)."""

_POLYNOMIAL = 0x04C11DB7
_TOP_BIT = 0x80000000
_MASK = 0xFFFFFFFF


def _table_entry(byte: int) -> int:
    register = byte << 24
    for _ in range(8):
        register = (register << 1) ^ (_POLYNOMIAL if register & _TOP_BIT else 0)
    return register & _MASK


_TABLE = tuple(_table_entry(byte) for byte in range(256))


def crc32_mpeg2(data: bytes | bytearray | memoryview) -> int:
    """Return the 32-bit checksum of `data`; over a whole section, its CRC_32 included, it is 0.

    Polynomial 0x04C11DB7, register preset to ones, nothing reflected, no final inversion
    (ISO/IEC 13818-1 Annex A). A memoryview must be one of single bytes.
    """
    register = _MASK
    for byte in data:
        register = ((register << 8) & _MASK) ^ _TABLE[(register >> 24) ^ byte]
    return register
