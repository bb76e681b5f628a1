"""The SMS of the demo: plays a sample file through OAuth and REST, and keeps the ledger."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from demo.ledger import Ledger

ON_AIR_TIMEOUT_S = 60.0
_GONE = {"on_air", "superseded", "expired"}
_UNIT_S = {"s": 1, "h": 3600, "d": 86400}
_RELATIVE = re.compile(r"([+-]\d+)([shd])")
_TIMES = ("starts_at", "ends_at", "expires_at")


@dataclass
class Outcome:
    """What came of the day."""

    ledger: Ledger = field(default_factory=Ledger)
    accepted: dict[str, dict[str, Any]] = field(default_factory=dict)
    """transaction_id → the answer."""
    last_request: dict[str, str] = field(default_factory=dict)
    """device_id → request_id of its last accepted order."""
    refused: Counter[str] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)
    sent: int = 0


class SmsClient:
    """One API client with its access token."""

    def __init__(self, client_file: Path) -> None:
        self._client = json.loads(client_file.read_text(encoding="utf-8"))
        self._http = httpx.AsyncClient(base_url=self._client["api_url"], timeout=10.0)

    async def sign_in(self) -> None:
        """Fetch an access token (RFC 6749 4.4)."""
        answer = await self._http.post(
            self._client["token_url"],
            data={"grant_type": "client_credentials"},
            auth=(self._client["client_id"], self._client["client_secret"]),
        )
        answer.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    async def call(self, method: str, path: str, body: Any = None) -> httpx.Response:  # noqa: ANN401 (JSON)
        """One call; the answer whatever its status."""
        return await self._http.request(method, path, json=body)

    async def close(self) -> None:
        """Hang up."""
        await self._http.aclose()


def absolute(body: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Put times where the sample says "+15s"."""
    out = dict(body)
    for name in _TIMES:
        if match := _RELATIVE.fullmatch(str(out.get(name, ""))):
            moment = now + timedelta(seconds=int(match[1]) * _UNIT_S[match[2]])
            out[name] = moment.isoformat(timespec="seconds")
    return out


async def play(
    client: SmsClient, day: list[dict[str, Any]], length_s: float, tick: Callable[[], None]
) -> Outcome:
    """Play a day's orders in `length_s` seconds; orders of one box keep their order."""
    outcome = Outcome()
    sent_bodies: dict[str, dict[str, Any]] = {}
    turns: dict[str, asyncio.Task[None]] = {}
    begin, day_s = time.monotonic(), day[-1]["at_s"] or 1.0

    async def send(line: dict[str, Any], before: list[asyncio.Task[None]]) -> None:
        if before:
            await asyncio.wait(before)
        body = absolute(line["body"], datetime.now(UTC))
        transaction_id = body["transaction_id"]
        if "message_of" in body:
            body["message_id"] = outcome.ledger.message_of[body.pop("message_of")][1]
        if line["expect"] == "replay":
            body = sent_bodies[transaction_id]
        answer = await client.call("POST", f"/{line['op']}", body)
        _book(outcome, line, body, answer)
        sent_bodies.setdefault(transaction_id, body)
        tick()

    for line in day:
        wait_s = begin + line["at_s"] / day_s * length_s - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        body = line["body"]
        keys = [body.get("device_id"), body.get("message_of"), body["transaction_id"]]
        names = [key for key in keys if key is not None]
        before = [turns[name] for name in names if name in turns]
        task = asyncio.create_task(send(line, before))
        turns |= dict.fromkeys(names, task)
    await asyncio.gather(*turns.values())
    return outcome


def _book(
    outcome: Outcome, line: dict[str, Any], body: dict[str, Any], answer: httpx.Response
) -> None:
    op, expect, transaction_id = line["op"], line["expect"], body["transaction_id"]
    said = answer.json()
    if answer.status_code == httpx.codes.ACCEPTED:
        got = "replay" if transaction_id in outcome.accepted else "accepted"
        if got == "replay" and said != outcome.accepted[transaction_id]:
            outcome.surprises.append(f"{transaction_id}: a repeat was answered differently")
        if got == "accepted":
            outcome.accepted[transaction_id] = said
            outcome.ledger.accepted(op, body, said)
            device_id = body.get("device_id")
            if device_id is not None:
                outcome.last_request[device_id] = said["request_id"]
    else:
        got = said.get("code", f"status {answer.status_code}")
        outcome.refused[got] += 1
    if got != "replay":
        outcome.sent += 1
    if got != expect:
        outcome.surprises.append(f"{transaction_id} {op}: expected {expect}, got {got}")


async def until_on_air(client: SmsClient, outcome: Outcome, tick: Callable[[], None]) -> None:
    """Wait until the last order of every box is on air, and every message is."""
    texts = {a["request_id"] for a in outcome.accepted.values() if "message_id" in a}
    waiting = [*outcome.last_request.values(), *texts]
    end = time.monotonic() + ON_AIR_TIMEOUT_S
    boxes = set(outcome.last_request.values())
    while waiting:
        still = []
        for request_id in waiting:
            status = (await client.call("GET", f"/requests/{request_id}")).json()["status"]
            if status not in _GONE:
                still.append(request_id)
            elif request_id in boxes:
                boxes.discard(request_id)
                tick()
        if still and time.monotonic() > end:
            raise SystemExit(f"not on air after {ON_AIR_TIMEOUT_S:.0f} s: {still[:5]}")
        waiting = still
        await asyncio.sleep(0.2 if still else 0)
