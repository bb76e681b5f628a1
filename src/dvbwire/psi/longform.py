"""The long section form that PAT, CAT and PMT share (ISO/IEC 13818-1 clause 2.4.4.11)."""

from dataclasses import dataclass

from dvbwire.crc import crc32_mpeg2
from dvbwire.psi.errors import PsiError, PsiReason

_LENGTH_FIELD_END = 3
_FIXED_SIZE = 8
_CRC_SIZE = 4
# 2.4.4.5, 2.4.4.6, 2.4.4.9: the first two bits of section_length are 00, its value at most 1021.
MAX_PSI_SECTION_SIZE = 1024
_MAX_VERSION = 31
_MAX_SECTION_NUMBER = 255
_MAX_EXTENSION = 0xFFFF


@dataclass(frozen=True, slots=True)
class LongSection:
    """One long-form section between its header and its CRC_32.

    Attributes:
        table_id: 8 bits.
        extension: the 16 bits after section_length; their meaning is the table's.
        version: 0 to 31.
        body: what follows last_section_number, up to CRC_32.
        current: current_next_indicator.
        section_number: 0 to 255.
        last_section_number: 0 to 255.
    """

    table_id: int
    extension: int
    version: int
    body: bytes
    current: bool = True
    section_number: int = 0
    last_section_number: int = 0

    def to_section(self) -> bytes:
        """Return the whole section.

        Raises:
            PsiError: it would be longer than 1024 bytes (reason length), or a field is out of
                range (reason value).
        """
        size = _FIXED_SIZE + len(self.body) + _CRC_SIZE
        if size > MAX_PSI_SECTION_SIZE:
            raise PsiError(PsiReason.LENGTH, f"the table needs a section of {size} bytes")
        if not (
            0 <= self.extension <= _MAX_EXTENSION
            and 0 <= self.version <= _MAX_VERSION
            and 0 <= self.section_number <= self.last_section_number <= _MAX_SECTION_NUMBER
        ):
            raise PsiError(PsiReason.VALUE, "id, version or section number out of range")
        header = bytes((self.table_id,)) + (0xB000 | size - _LENGTH_FIELD_END).to_bytes(2)
        numbers = bytes(
            (
                0xC0 | self.version << 1 | self.current,
                self.section_number,
                self.last_section_number,
            )
        )
        section = header + self.extension.to_bytes(2) + numbers + self.body
        return section + crc32_mpeg2(section).to_bytes(_CRC_SIZE)

    @classmethod
    def from_section(cls, section: bytes, table_id: int) -> "LongSection":
        """Read a section that must be of `table_id`.

        Raises:
            PsiError: with the reason: length, table_id, syntax (short form) or crc.
        """
        check_length(section, _FIXED_SIZE + _CRC_SIZE, MAX_PSI_SECTION_SIZE)
        if section[0] != table_id:
            raise PsiError(PsiReason.TABLE_ID, f"0x{section[0]:02X} where 0x{table_id:02X} belongs")
        if not section[1] & 0x80:  # 2.4.4.5: section_syntax_indicator shall be 1
            raise PsiError(PsiReason.SYNTAX, "section_syntax_indicator is 0")
        check_crc(section)
        return cls(
            table_id=table_id,
            extension=int.from_bytes(section[3:5]),
            version=section[5] >> 1 & _MAX_VERSION,
            body=section[_FIXED_SIZE:-_CRC_SIZE],
            current=bool(section[5] & 1),
            section_number=section[6],
            last_section_number=section[7],
        )


def check_length(section: bytes, at_least: int, at_most: int) -> None:
    """Raise PsiError (reason length) unless section_length is right and the size within bounds."""
    if not at_least <= len(section) <= at_most:
        raise PsiError(PsiReason.LENGTH, f"{len(section)} bytes")
    announced = _LENGTH_FIELD_END + ((section[1] & 0x0F) << 8 | section[2])
    if announced != len(section):
        raise PsiError(PsiReason.LENGTH, f"section_length says {announced} of {len(section)} bytes")


def check_crc(section: bytes) -> None:
    """Raise PsiError (reason crc) unless the section's last four bytes are its CRC_32."""
    if crc32_mpeg2(section) != 0:  # Annex A: zero over the whole section
        raise PsiError(PsiReason.CRC, "CRC_32 does not match")
