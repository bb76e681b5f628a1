"""Why a section cannot be read or written."""

from enum import StrEnum

from dvbwire.errors import DvbWireError


class PsiReason(StrEnum):
    """What is wrong, as a stable code for counters."""

    TABLE_ID = "table_id"
    LENGTH = "length"
    SYNTAX = "syntax"
    CRC = "crc"
    VALUE = "value"


class PsiError(DvbWireError):
    """A section contradicts the standard, or a table does not fit into one.

    Attributes:
        reason: what is wrong.
    """

    def __init__(self, reason: PsiReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
