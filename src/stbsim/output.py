"""Events and reports as JSON and as lines for people. Times are RFC 3339, UTC."""

from dataclasses import asdict
from datetime import UTC, datetime

from stbsim.box import Box
from stbsim.emm import NO_END
from stbsim.events import (
    EntitlementChanged,
    EntitlementGained,
    EntitlementLost,
    Event,
    MessageEnded,
    MessageShown,
    StateHeld,
    TimeHeard,
)
from stbsim.receiver import Receiver

_EVENT_NAMES = {
    StateHeld: "state",
    EntitlementGained: "entitlement_gained",
    EntitlementChanged: "entitlement_changed",
    EntitlementLost: "entitlement_lost",
    MessageShown: "message_shown",
    MessageEnded: "message_ended",
    TimeHeard: "time",
}


def rfc3339(time: int | None) -> str | None:
    """Write seconds since 1970; None stays None."""
    if time is None:
        return None
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def event_json(event: Event, time: int | None) -> dict[str, object]:
    """Return an event as the fields of its JSON line; `time` in seconds is the stream's."""
    fields: dict[str, object] = {"time": rfc3339(time), "event": _EVENT_NAMES[type(event)]}
    fields |= asdict(event)
    fields.pop("utc", None)
    if "device_id" in fields:
        fields["device_id"] = str(fields["device_id"])
    if isinstance(event, EntitlementGained | EntitlementChanged):
        fields["ends_at"] = rfc3339(event.ends_at)
    if isinstance(event, StateHeld):
        fields["status"] = _status(fields.pop("active") is True)
    return fields


def event_line(event: Event, time: int | None) -> str | None:
    """Return an event as one line (time, box, what); None for those people need not see."""
    match event:
        case TimeHeard():
            return None
        case StateHeld():
            what = f"{_status(event.active)}, state {event.epoch}/{event.number}"
        case EntitlementGained():
            what = f"gained product {event.product_id}{_end(event.ends_at)}"
        case EntitlementChanged():
            what = f"holds product {event.product_id}{_end(event.ends_at)}"
        case EntitlementLost():
            what = f"lost product {event.product_id}"
        case MessageShown():
            what = f"shows message {event.message_id}: {event.text!r}"
        case MessageEnded():
            what = f"ends message {event.message_id} ({event.why})"
    return f"{rfc3339(time) or 'no time yet':20} {event.device_id:>13} {what}"


def _end(ends_at: int | None) -> str:
    return ", no end" if ends_at is None else f" until {rfc3339(ends_at)}"


def _status(active: bool) -> str:  # noqa: FBT001 (the one thing it is about)
    return "active" if active else "removed"


def report(receiver: Receiver, as_of: int | None) -> dict[str, object]:
    """Return what every box holds at `as_of` (seconds; None: no time is known)."""
    emm_pid, ca_system_id = receiver.emm_source or (None, None)
    return {
        "as_of": rfc3339(as_of),
        "emm_pid": emm_pid,
        "ca_system_id": ca_system_id,
        "packets": receiver.packets,
        "boxes": {
            str(device_id): _box_report(box, as_of or 0)
            for device_id, box in receiver.boxes.items()
        },
        "ignored": {reason.value: count for reason, count in sorted(receiver.ignored.items())},
    }


def _box_report(box: Box, as_of: int) -> dict[str, object]:
    windows: dict[int, tuple[int, int]] = {}
    for record in box.entitlements:
        if not record.ended(as_of):
            start, end = windows.get(record.product_id, (record.starts_at, record.ends_at))
            windows[record.product_id] = (min(start, record.starts_at), max(end, record.ends_at))
    messages = sorted(box.messages.values(), key=lambda message: message.message_id)
    return {
        "status": None if box.active is None else _status(box.active),
        "products": {
            str(product_id): {
                "starts_at": rfc3339(start) if start > as_of else None,
                "ends_at": rfc3339(end) if end != NO_END else None,
            }
            for product_id, (start, end) in sorted(windows.items())
        },
        "messages": [
            {"message_id": message.message_id, "text": message.text}
            for message in messages
            if message.expiry > as_of
        ],
        "number": box.number[1] if box.number is not None else None,
    }
