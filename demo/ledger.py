"""What the SMS was promised: kept by the ordering side alone, from the head-end's 2xx answers."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

FOR_EVER = datetime.max.replace(tzinfo=UTC)
MESSAGE_LIFE = timedelta(days=7)


def whole_second(value: str) -> datetime:
    """An RFC 3339 time as the interface holds it: in whole seconds."""
    return datetime.fromisoformat(value).astimezone(UTC).replace(microsecond=0)


@dataclass
class Box:
    """One box as ordered."""

    active: bool = True
    products: dict[int, tuple[datetime, datetime]] = field(default_factory=dict)
    messages: dict[int, tuple[str, datetime]] = field(default_factory=dict)


@dataclass
class Ledger:
    """Every box that was ever added."""

    boxes: dict[str, Box] = field(default_factory=dict)
    message_of: dict[str, tuple[str, int]] = field(default_factory=dict)
    """transaction_id → (device_id, message_id)."""

    def accepted(self, op: str, body: dict[str, Any], answer: dict[str, Any]) -> None:
        """Book one accepted order; `answer` is what the head-end said."""
        accepted_at = whole_second(answer["accepted_at"])
        if op == "adddevice":
            self.boxes[body["device_id"]] = Box()
        elif op == "removedevice":
            self.boxes[body["device_id"]] = Box(active=False)
        elif op == "addentitlement":
            start, end = body.get("starts_at"), body.get("ends_at")
            self.boxes[body["device_id"]].products[body["product_id"]] = (
                whole_second(start) if start else accepted_at,
                whole_second(end) if end else FOR_EVER,
            )
        elif op == "removeentitlement":
            self.boxes[body["device_id"]].products.pop(body["product_id"], None)
        elif op == "generateosm":
            expiry = body.get("expires_at")
            message_id = answer["message_id"]
            self.message_of[body["transaction_id"]] = (body["device_id"], message_id)
            self.boxes[body["device_id"]].messages[message_id] = (
                body["text"],
                whole_second(expiry) if expiry else accepted_at + MESSAGE_LIFE,
            )
        elif op == "removeosm":
            for box in self.boxes.values():
                box.messages.pop(body["message_id"], None)
        else:
            raise ValueError(f"an op that no ledger knows: {op}")

    def as_of(self, moment: datetime) -> dict[str, Any]:
        """What every box is to hold at `moment`, in the form of ledger.json."""
        return {"as_of": rfc3339(moment)} | {
            device_id: {
                "status": "active" if box.active else "removed",
                "products": {
                    str(product): {
                        "starts_at": rfc3339(start) if start > moment else None,
                        "ends_at": None if end == FOR_EVER else rfc3339(end),
                    }
                    for product, (start, end) in sorted(box.products.items())
                    if end > moment
                },
                "messages": [
                    {"message_id": message_id, "text": text}
                    for message_id, (text, expiry) in sorted(box.messages.items())
                    if expiry > moment
                ],
            }
            for device_id, box in sorted(self.boxes.items())
        }


def rfc3339(moment: datetime) -> str:
    """UTC with a Z, in whole seconds."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def agrees(ordered: dict[str, Any], held: dict[str, Any]) -> bool:
    """Whether a box, as stbsim reports it, holds what the ledger says."""
    return all(ordered[name] == held[name] for name in ("status", "products", "messages"))


def brief(box: dict[str, Any]) -> str:
    """A box of either in one line."""
    products = " ".join(box["products"])
    return f"{box['status']}: {products or '–'}; {len(box['messages'])} messages"
