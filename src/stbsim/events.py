"""What happens to a box, or to the time, as values."""

from dataclasses import dataclass
from enum import StrEnum


class MessageEnd(StrEnum):
    """Why a message went off the screen."""

    DURATION = "duration"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class StateHeld:
    """A box took over a newer state."""

    device_id: int
    epoch: int
    number: int
    active: bool


@dataclass(frozen=True, slots=True)
class EntitlementGained:
    """A product is in force from now on; `ends_at` in seconds, None for no end."""

    device_id: int
    product_id: int
    ends_at: int | None


@dataclass(frozen=True, slots=True)
class EntitlementChanged:
    """A product in force got another end."""

    device_id: int
    product_id: int
    ends_at: int | None


@dataclass(frozen=True, slots=True)
class EntitlementLost:
    """A product is in force no longer."""

    device_id: int
    product_id: int


@dataclass(frozen=True, slots=True)
class MessageShown:
    """The text of a message is complete; duration in seconds, 0 until withdrawn."""

    device_id: int
    message_id: int
    text: str
    duration: int
    position: int
    priority: int


@dataclass(frozen=True, slots=True)
class MessageEnded:
    """A message went off the screen."""

    device_id: int
    message_id: int
    why: MessageEnd


@dataclass(frozen=True, slots=True)
class TimeHeard:
    """A TDT or TOT came in; seconds since 1970."""

    utc: int


BoxEvent = (
    StateHeld
    | EntitlementGained
    | EntitlementChanged
    | EntitlementLost
    | MessageShown
    | MessageEnded
)
Event = BoxEvent | TimeHeard
