"""The time as a stream tells it: TDT and TOT (EN 300 468 clauses 5.2.5 and 5.2.6)."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from dvbwire.psi.errors import PsiError, PsiReason
from dvbwire.psi.longform import check_crc, check_length

TDT_PID = 0x0014
TDT_TABLE_ID = 0x70
TOT_TABLE_ID = 0x73

_TDT_SIZE = 8
_TOT_MIN_SIZE = 14
_TOT_MAX_SIZE = 1024
_MJD_EPOCH = datetime(1858, 11, 17, tzinfo=UTC)
_MAX_MJD = 0xFFFF
_MAX_DIGIT = 9


@dataclass(frozen=True, slots=True)
class Tdt:
    """Time and date section.

    Attributes:
        utc: aware; whole seconds on the wire, from 1858-11-17 to 2038-04-22.
    """

    utc: datetime

    def to_section(self) -> bytes:
        """Return the TDT section: short form, no CRC; fractions of a second are cut off.

        Raises:
            PsiError: the date is naive or beyond the 16 bits of the modified Julian date (reason
                value).
        """
        if self.utc.tzinfo is None:
            raise PsiError(PsiReason.VALUE, "a time without a zone")
        since_epoch = self.utc - _MJD_EPOCH
        if not 0 <= since_epoch.days <= _MAX_MJD:
            raise PsiError(PsiReason.VALUE, f"{self.utc.isoformat()} has no modified Julian date")
        minutes, second = divmod(since_epoch.seconds, 60)
        hour, minute = divmod(minutes, 60)
        clock = bytes(_bcd(part) for part in (hour, minute, second))
        # 5.2.5: section_syntax_indicator 0, reserved bits 1, section_length 5
        return bytes((TDT_TABLE_ID, 0x70, 5)) + since_epoch.days.to_bytes(2) + clock

    @classmethod
    def from_section(cls, section: bytes) -> Self:
        """Read the time from a TDT or a TOT section.

        Raises:
            PsiError: with the reason: table_id, length, crc (TOT) or value (no date or time).
        """
        if section[:1] == bytes((TOT_TABLE_ID,)):  # 5.2.6: UTC_time as in the TDT, then CRC_32
            check_length(section, _TOT_MIN_SIZE, _TOT_MAX_SIZE)
            check_crc(section)
        else:
            check_length(section, _TDT_SIZE, _TDT_SIZE)
            if section[0] != TDT_TABLE_ID:
                raise PsiError(PsiReason.TABLE_ID, f"0x{section[0]:02X} is neither TDT nor TOT")
        return cls(_read_utc_time(section[3:8]))


def _bcd(value: int) -> int:
    tens, ones = divmod(value, 10)
    return tens << 4 | ones


def _read_utc_time(field: bytes) -> datetime:
    """Read 16 bits of MJD and 24 of BCD hours, minutes, seconds (EN 300 468 Annex C)."""
    digits = [digit for byte in field[2:] for digit in (byte >> 4, byte & 0x0F)]
    hour, minute, second = (10 * digits[at] + digits[at + 1] for at in (0, 2, 4))
    if max(digits) > _MAX_DIGIT or hour > 23 or minute > 59 or second > 59:  # noqa: PLR2004 (a clock)
        raise PsiError(PsiReason.VALUE, f"UTC_time {field.hex()}")
    days = int.from_bytes(field[:2])
    return _MJD_EPOCH + timedelta(days=days, hours=hour, minutes=minute, seconds=second)
