"""One box by which to tell when everything works again: an order, until the box holds it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from demo.ledger import rfc3339
from tests.faults.boxes import Boxes
from tests.faults.sms import ANSWER_TIMEOUT_S, PRODUCTS, Access, ledger_of

_REPEAT_S = 0.05
_GIVE_UP_S = 60.0


@dataclass
class Probe:
    """A box apart from the load's, and its line to the head-end."""

    device_id: str
    boxes: Boxes
    ledger: Path
    http: httpx.Client
    numbers: Iterator[int]

    def add(self) -> None:
        """Order the box into being, if it is not yet."""
        if self.device_id not in ledger_of(self.ledger).boxes:
            self.order("adddevice", {"device_id": self.device_id})

    def seen(self) -> float:
        """Give an order and repeat it until it is taken; monotonic time when the box holds it."""
        give_up = time.monotonic() + _GIVE_UP_S
        ends_at = datetime.now(UTC).replace(microsecond=0) + timedelta(
            days=1, seconds=next(self.numbers)
        )
        grant = {
            "device_id": self.device_id,
            "product_id": PRODUCTS[0],
            "ends_at": rfc3339(ends_at),
        }
        self.order("addentitlement", grant, give_up)
        box_number, end = int(self.device_id), int(ends_at.timestamp())
        assert self.boxes.wait(
            lambda receiver: any(
                record.ends_at == end for record in receiver.boxes[box_number].entitlements
            ),
            give_up - time.monotonic(),
        ), f"taken, but not at the box within {_GIVE_UP_S:.0f} s"
        return time.monotonic()

    def order(
        self, op: str, body: dict[str, object], give_up: float | None = None
    ) -> dict[str, Any]:
        """Repeat an order until it is taken, and book it; the answer."""
        give_up = give_up or time.monotonic() + _GIVE_UP_S
        body["transaction_id"] = f"probe-{next(self.numbers)}"
        while True:
            try:
                answer = self.http.post(f"/{op}", json=body)
            except httpx.TransportError as error:
                said = repr(error)
            else:
                if answer.status_code == httpx.codes.ACCEPTED:
                    break
                said = answer.text
            assert time.monotonic() < give_up, said
            time.sleep(_REPEAT_S)
        line = {"op": op, "body": body, "answer": answer.json()}
        with self.ledger.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return line["answer"]


@contextmanager
def probe(
    access: Access, boxes: Boxes, ledger: Path, device_id: str, numbers: Iterator[int]
) -> Iterator[Probe]:
    """A probe whose box has been added; `numbers` never repeat for one ledger."""
    with httpx.Client(base_url=access.url, verify=access.tls(), timeout=ANSWER_TIMEOUT_S) as http:
        http.headers["Authorization"] = f"Bearer {access.token(http)}"
        one = Probe(device_id, boxes, ledger, http, numbers)
        one.add()
        yield one
