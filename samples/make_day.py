"""Write samples/day.jsonl: a day of SMS orders over 200 boxes, the same at every run.

    python samples/make_day.py > samples/day.jsonl

A line is one call: `at_s` (seconds of the day), `op`, `body` and `expect`
(`accepted`, or the code of the refusal). In a body, "+15s", "-1h" and "+30d"
stand for times relative to the sending; `message_of` names the transaction
whose message is meant. Windows that begin or end while the sample plays lie
in its first half, so that nothing ends while its outcome is being read.
"""

import json
import random
import sys
from collections.abc import Iterator
from itertools import count
from typing import Any

DAY_S = 86_400
BOXES = [str(4_800_000_000 + 7 * n) for n in range(200)]
PRODUCTS = {
    101: "Basic",
    102: "News",
    103: "Sport",
    104: "Films",
    105: "Children",
    106: "Documentaries",
    107: "Music",
    108: "Regional",
    110: "Event channel",
}
TEXTS = [
    "Your subscription has been renewed. Thank you!",
    "Ihr Abonnement läuft in drei Tagen ab.",
    "Votre facture est disponible en ligne.",
    "Η συνδρομή σας ανανεώθηκε.",
    "Ваша подписка продлена.",
    "تم تجديد اشتراكك. شكرًا لك!",
    "המינוי שלך חודש.",
    "आपकी सदस्यता का नवीनीकरण हो गया है।",
    "您的订阅已续订。谢谢！",
    "ご契約が更新されました。",
    "구독이 갱신되었습니다.",
    "สมาชิกของคุณได้รับการต่ออายุแล้ว",
    "Tonight 20:45 ⚽ live on Sport 📺",
]
WINDOWS = ["+1d", "+7d", "+30d", "+365d", None]


class Day:
    """The state of the boxes while the day is being written."""

    def __init__(self) -> None:
        self.random = random.Random(20260101)  # noqa: S311 (a sample, the same at every run)
        self.active: set[str] = set()
        self.known: set[str] = set()
        self.held: dict[str, set[int]] = {}
        self.messages: list[tuple[str, str]] = []
        self.numbers = count(1)

    def line(self, at_s: float, op: str, expect: str = "accepted", **body: Any) -> dict[str, Any]:  # noqa: ANN401 (bodies differ by op)
        """One call, under a fresh transaction_id unless the body brings one."""
        body = {"transaction_id": f"day-{next(self.numbers):05}"} | body
        return {"at_s": round(at_s, 1), "op": op, "body": body, "expect": expect}

    def activation(self, at_s: float, box: str) -> Iterator[dict[str, Any]]:
        """A box is added and gets its first products."""
        yield self.line(at_s, "adddevice", device_id=box)
        self.active.add(box)
        self.known.add(box)
        self.held[box] = set()
        for product in (101, *self.random.sample([102, 103, 104, 105], 2)):
            yield self.grant(at_s, box, product)

    def grant(self, at_s: float, box: str, product: int) -> dict[str, Any]:
        """A grant or an extension; some begin or end while the sample plays."""
        body: dict[str, Any] = {"device_id": box, "product_id": product}
        if end := self.random.choice(WINDOWS):
            body["ends_at"] = end
        if at_s < DAY_S * 0.4 and self.random.random() < 0.12:
            body["ends_at"] = self.random.choice(["+8s", "+15s", "+20s"])
        elif at_s < DAY_S * 0.4 and self.random.random() < 0.12:
            body |= {"starts_at": self.random.choice(["+6s", "+12s"]), "ends_at": "+30d"}
        elif self.random.random() < 0.1:
            body |= {"starts_at": self.random.choice(["-2h", "+3d"]), "ends_at": "+30d"}
        self.held[box].add(product)
        return self.line(at_s, "addentitlement", **body)

    def message(self, at_s: float, box: str) -> dict[str, Any]:
        """A text for the screen, now and then a very long one."""
        text = self.random.choice(TEXTS)
        if self.random.random() < 0.03:
            text = (text + " ") * 40
        body: dict[str, Any] = {
            "device_id": box,
            "text": text[:1000].strip(),
            "duration_s": self.random.choice([0, 10, 30]),
        }
        if self.random.random() < 0.3:
            body |= {"position": self.random.randint(0, 4), "priority": self.random.randint(0, 9)}
        if at_s < DAY_S * 0.4 and self.random.random() < 0.15:
            body["expires_at"] = "+20s"
        line = self.line(at_s, "generateosm", **body)
        if "expires_at" not in body:  # one that may be over cannot be removed
            self.messages.append((line["body"]["transaction_id"], box))
        return line

    def bad(self, at_s: float) -> Iterator[dict[str, Any]]:
        """An order that must be refused, each kind in turn; and repeats that must not."""
        box = self.random.choice(sorted(self.active))
        gone = sorted(self.known - self.active)
        kind = self.random.randrange(11)
        grant = {"device_id": box, "product_id": 101}
        if kind == 0:
            yield self.line(
                at_s, "addentitlement", "unknown_product", **grant | {"product_id": 999}
            )
        elif kind == 1:
            yield self.line(at_s, "addentitlement", "unknown_device", **grant | {"device_id": "77"})
        elif kind == 2:
            window = {"starts_at": "+2d", "ends_at": "+1d"}
            yield self.line(at_s, "addentitlement", "invalid_window", **grant | window)
        elif kind == 3:
            body = {"device_id": box, "text": "x" * 1001, "duration_s": 5}
            yield self.line(at_s, "generateosm", "text_too_long", **body)
        elif kind == 4:
            yield self.line(at_s, "adddevice", "invalid_value", device_id=str(2**40))
        elif kind == 5:
            yield self.line(at_s, "adddevice", "device_exists", device_id=box)
        elif kind == 6:
            yield self.line(at_s, "adddevice", "no_device_key", device_id="88")
        elif kind == 7:
            yield self.line(at_s, "removeosm", "unknown_message", message_id=4_000_000_000)
        elif kind == 8 and gone:
            yield self.line(
                at_s, "removeentitlement", "device_not_active", device_id=gone[0], product_id=101
            )
        elif kind == 9:
            first = self.line(at_s, "removeentitlement", device_id=box, product_id=110)
            self.held[box].discard(110)
            yield first
            yield first | {"expect": "replay"}
        else:
            first = self.line(at_s, "removeentitlement", device_id=box, product_id=110)
            self.held[box].discard(110)
            yield first
            other = first["body"] | {"product_id": 108}
            yield first | {"body": other, "expect": "transaction_conflict"}

    def write(self) -> Iterator[dict[str, Any]]:
        """The whole day in order of time; 195 boxes are activated, 5 never are."""
        starts = sorted(self.random.uniform(0, DAY_S * 0.6) for _ in BOXES[:145])
        times = [0.0] * 50 + starts
        waiting = list(zip(times, BOXES, strict=False))
        moments = sorted(self.random.uniform(600, DAY_S * 0.97) for _ in range(1750))
        for at_s in moments:
            while waiting and waiting[0][0] <= at_s:
                yield from self.activation(*waiting.pop(0))
            yield from self.happening(at_s)

    def happening(self, at_s: float) -> Iterator[dict[str, Any]]:
        """What one moment of the day brings."""
        box = self.random.choice(sorted(self.active))
        chance = self.random.random()
        if chance < 0.45:
            yield self.grant(at_s, box, self.random.choice(sorted(PRODUCTS)))
        elif chance < 0.65 and self.held[box]:
            product = self.random.choice(sorted(self.held[box]))
            self.held[box].discard(product)
            yield self.line(at_s, "removeentitlement", device_id=box, product_id=product)
        elif chance < 0.83:
            yield self.message(at_s, box)
        elif chance < 0.85 and self.messages:
            transaction, _ = self.messages.pop(self.random.randrange(len(self.messages)))
            yield self.line(at_s, "removeosm", message_of=transaction)
        elif chance < 0.87 and len(self.active) > 40:
            self.active.discard(box)
            self.held[box] = set()
            self.messages = [kept for kept in self.messages if kept[1] != box]
            yield self.line(at_s, "removedevice", device_id=box)
        elif chance < 0.885 and self.known - self.active:
            yield from self.activation(at_s, min(self.known - self.active))
        else:
            yield from self.bad(at_s)


if __name__ == "__main__":
    for order in sorted(Day().write(), key=lambda line: line["at_s"]):
        sys.stdout.write(json.dumps(order, ensure_ascii=False) + "\n")
