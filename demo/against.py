"""`make smoke`: the demo's ledger check against a head-end that runs already.

    python -m demo.against --client FILE --boxes FILE --stream URL [--seconds S]

Orders go in by OAuth and REST, and virtual boxes listen to the transport stream. The boxes are
the test's own: it removes each before and after, and asks for nothing that depends on the
catalogue of the place.
"""

import argparse
import asyncio
import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from demo.ledger import agrees, brief
from demo.sms import Outcome, SmsClient, play, until_on_air
from samples.make_day import BOXES, PRODUCTS

DAY = Path("samples/day.jsonl")
REPEAT_S = 5.0
"""How long the boxes go on listening: what a lost datagram held is repeated within it."""
_NOT_THERE = {"unknown_device", "device_not_active"}

console = Console()


def orders_for(day: list[dict[str, Any]], boxes: list[str], run: str) -> list[dict[str, Any]]:
    """The day's good orders for its first boxes, for these instead, under ids of this run."""
    ours = dict(zip(BOXES, boxes, strict=False))
    lines, transactions = [], set()
    for line in day:
        body = dict(line["body"])
        known = body.get("device_id") in ours or body.get("message_of") in transactions
        if line["expect"] not in ("accepted", "replay") or not known:
            continue
        transactions.add(body["transaction_id"])
        if "device_id" in body:
            body["device_id"] = ours[body["device_id"]]
        for name in ("transaction_id", "message_of"):
            if name in body:
                body[name] = f"{run}-{body[name]}"
        lines.append(line | {"body": body})
    return lines


async def remove(client: SmsClient, boxes: list[str], run: str) -> None:
    """Take the boxes out, those that are in."""
    for device_id in boxes:
        body = {"transaction_id": f"{run}-{device_id}", "device_id": device_id}
        answer = await client.call("POST", "/removedevice", body)
        if answer.status_code != httpx.codes.ACCEPTED and answer.json()["code"] not in _NOT_THERE:
            raise SystemExit(f"box {device_id} cannot be removed: {answer.text}")


async def order(
    client_file: Path, day: list[dict[str, Any]], boxes: list[str], run: str, length_s: float
) -> Outcome:
    """Play the orders and wait until the last of every box is on air."""
    client = SmsClient(client_file)
    await client.sign_in()
    await remove(client, boxes, f"{run}-before")
    listed = (await client.call("GET", "/products")).raise_for_status().json()["products"]
    for product_id in PRODUCTS.keys() - {one["product_id"] for one in listed}:
        body = {"name": PRODUCTS[product_id]}
        (await client.call("PUT", f"/products/{product_id}", body)).raise_for_status()
    outcome = await play(client, orders_for(day, boxes, run), length_s, lambda: None)
    await until_on_air(client, outcome, lambda: None)
    await asyncio.sleep(REPEAT_S)
    await client.close()
    return outcome


async def clear(client_file: Path, boxes: list[str], run: str) -> None:
    """Leave nothing behind."""
    client = SmsClient(client_file)
    await client.sign_in()
    await remove(client, boxes, f"{run}-after")
    await client.close()


@contextmanager
def listening(stream: str, boxes_file: Path) -> Iterator["subprocess.Popen[str]"]:
    """Virtual boxes on the stream, from before the first order."""
    boxes = subprocess.Popen(
        [*(sys.executable, "-m", "stbsim.main", "report", stream), "--devices", str(boxes_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert boxes.stderr is not None  # noqa: S101 (for mypy: it is a pipe)
        if "listening" not in (said := boxes.stderr.readline()):
            raise SystemExit(f"the boxes cannot listen: {said}{boxes.stderr.read()}")
        yield boxes
    finally:
        boxes.kill()
        boxes.wait()


def main() -> int:
    """The whole check; returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--client", type=Path, required=True, help="client.json of the API client")
    parser.add_argument("--boxes", type=Path, required=True, help="devices.json of its boxes")
    parser.add_argument("--stream", required=True, help="udp://HOST:PORT of the transport stream")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the orders' play")
    given = parser.parse_args()
    boxes = [box["device_id"] for box in json.loads(given.boxes.read_text(encoding="utf-8"))]
    day = [json.loads(line) for line in DAY.read_text(encoding="utf-8").splitlines()]
    run = f"smoke-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    with listening(given.stream, given.boxes) as watching:
        outcome = asyncio.run(order(given.client, day, boxes, run, given.seconds))
        watching.send_signal(signal.SIGINT)
        told, wrong = watching.communicate(timeout=60)
    asyncio.run(clear(given.client, boxes, run))
    if watching.returncode:
        raise SystemExit(f"the boxes saw no stream: {wrong}")
    return judge(outcome, json.loads(told))


def judge(outcome: Outcome, seen: dict[str, Any]) -> int:
    """Hold the boxes against the ledger at the stream's own time."""
    if seen["as_of"] is None:
        raise SystemExit("the stream tells no time (TDT)")
    ledger = outcome.ledger.as_of(datetime.fromisoformat(seen["as_of"]))
    del ledger["as_of"]
    table = Table("box", "ordered", "held by the box", title="Boxes that differ")
    for device_id, box in ledger.items():
        if not agrees(box, seen["boxes"][device_id]):
            table.add_row(device_id, brief(box), brief(seen["boxes"][device_id]))
    if table.row_count:
        console.print(table)
    for surprise in outcome.surprises:
        console.print(f"unexpected: {surprise}")
    agree = len(ledger) - table.row_count
    console.print(f"{len(outcome.accepted)} orders, {agree} of {len(ledger)} boxes agree.")
    return 0 if ledger and agree == len(ledger) and not outcome.surprises else 1


if __name__ == "__main__":
    sys.exit(main())
