"""Boxes by the ten thousand, as an SMS brings them in: a vendor's key file, then `POST /batch`."""

import csv
import json
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from demo.ledger import rfc3339
from tests.faults.sms import Access

_LINES = 2000
_TIMEOUT_S = 60.0
_numbers = count(1)


def add_vendor_keys(vendor_file: Path, device_ids: Sequence[str]) -> None:
    """Put keys of boxes that nobody watches into the vendor's file."""
    with vendor_file.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([device_id, secrets.token_hex(32)] for device_id in device_ids)


def order_all(access: Access, ledger: Path, orders: Sequence[dict[str, Any]]) -> None:
    """Give orders by the batch, each into the ledger; every one of them must be accepted."""
    with (
        httpx.Client(base_url=access.url, verify=access.tls(), timeout=_TIMEOUT_S) as http,
        ledger.open("a", encoding="utf-8") as file,
    ):
        http.headers["Authorization"] = f"Bearer {access.token(http)}"
        for start in range(0, len(orders), _LINES):
            some = [
                {"transaction_id": f"all-{next(_numbers)}"} | order
                for order in orders[start : start + _LINES]
            ]
            for order, said in zip(some, _batch(http, some), strict=True):
                body = {name: value for name, value in order.items() if name != "op"}
                said["accepted_at"] = rfc3339(datetime.now(UTC))  # a batch does not tell
                line = {"op": order["op"], "body": body, "answer": said}
                file.write(json.dumps(line) + "\n")


def _batch(http: httpx.Client, orders: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Repeat a batch, whole, until each line has been accepted: the ids make that harmless."""
    content = "\n".join(map(json.dumps, orders))
    give_up = time.monotonic() + _TIMEOUT_S
    while True:
        pause_s = 0.5
        try:
            answer = http.post("/batch", content=content)
        except httpx.TransportError as error:
            said = repr(error)
        else:
            said = answer.text
            if answer.is_success:
                lines = [json.loads(line) for line in said.splitlines()]
                if all(line["status"] == "accepted" for line in lines):
                    return lines
            pause_s = float(answer.headers.get("Retry-After", pause_s))
        assert time.monotonic() < give_up, said[-500:]
        time.sleep(pause_s)
