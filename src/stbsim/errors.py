"""What may be wrong: with an EMM, with the stream, with what the user gave."""

from enum import StrEnum


class StbsimError(Exception):
    """The root of every error this package raises."""


class InputError(StbsimError):
    """The URL, the devices file or the stream cannot be used; the text says why, in one line."""


class Reason(StrEnum):
    """Why an EMM left the box as it was (docs/emm-format.md, "What the box does")."""

    OTHER_TABLE_ID = "other_table_id"
    OTHER_ADDRESS = "other_address"
    OTHER_VERSION = "other_version"
    OTHER_KIND = "other_kind"
    MALFORMED = "malformed"
    NOT_NEWER = "not_newer"
    OLDER_THAN_COLLECTED = "older_than_collected"
    REPEATED = "repeated"
    UNWRAP_FAILED = "unwrap_failed"
    TAG_FAILED = "tag_failed"
    EXPIRED = "expired"
    REMOVED = "removed"


class IgnoredError(StbsimError):
    """This EMM does not move the box.

    Attributes:
        reason: as it is counted.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason
