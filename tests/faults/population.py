"""Boxes by the ten thousand, as an SMS brings them in: a vendor's key file, then `POST /batch`."""

import csv
import json
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from demo.ledger import rfc3339
from portcullis.store.database import chunked
from tests.faults.sms import Access

_LINES = 2000
_TIMEOUT_S = 60.0
_numbers = count(1)


def add_vendor_keys(vendor_file: Path, device_ids: Sequence[str]) -> None:
    """Put keys of boxes that nobody watches into the vendor's file."""
    with vendor_file.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([device_id, secrets.token_hex(32)] for device_id in device_ids)


def order_all(access: Access, ledger: Path, orders: Sequence[dict[str, Any]]) -> None:
    """Give orders by the batch, each into the ledger; every one of them must be accepted.

    Two batches are under way at once: of the orders none may depend on another.
    """
    with (
        httpx.Client(base_url=access.url, verify=access.tls(), timeout=_TIMEOUT_S) as http,
        ledger.open("ab", buffering=0) as file,
        ThreadPoolExecutor(2) as pool,
    ):
        http.headers["Authorization"] = f"Bearer {access.token(http)}"
        batches = [
            [{"transaction_id": f"all-{next(_numbers)}"} | order for order in some]
            for some in chunked(orders, _LINES)
        ]
        answers = pool.map(partial(_batch, http), batches)
        for batch, answer in zip(batches, answers, strict=True):
            lines = []
            for order, said in zip(batch, answer, strict=True):
                body = {name: value for name, value in order.items() if name != "op"}
                said["accepted_at"] = rfc3339(datetime.now(UTC))  # a batch does not tell
                lines.append(json.dumps({"op": order["op"], "body": body, "answer": said}) + "\n")
            file.write("".join(lines).encode())  # in one: another may write beside it


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
