"""What the cycler airs and tells of it, as values: no SQL."""

from typing import NamedTuple

EmmKey = tuple[int, int, int]
"""device_id, message_id (0: the state), part."""


class AirableEmm(NamedTuple):
    """One row of `emms`; times in Unix seconds by the database's clock, None as in the row."""

    device_id: int
    message_id: int
    part: int
    parts: int
    number: int
    covers: int
    cause: str
    revision: int
    tombstone: bool
    section: bytes
    starts_at: float | None
    ends_at: float | None
    first_aired_at: float | None
    ordered_at: float | None

    @property
    def key(self) -> EmmKey:
        """What stays the same when the row is replaced."""
        return (self.device_id, self.message_id, self.part)


class FirstAiring(NamedTuple):
    """An EMM was handed to a multiplexer for the first time.

    `completes_set`: all parts of its set have now been aired, so the orders it covers are on air.
    `waited_s`: how long the oldest of these orders has waited, or its window; None: not known.
    """

    device_id: int
    message_id: int
    part: int
    revision: int
    covers: int
    completes_set: bool
    aired_at: float
    waited_s: float | None = None
