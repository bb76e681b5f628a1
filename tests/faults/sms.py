"""An SMS under load that never forgets: every 2xx is a line in its ledger file.

Each box, or few boxes together, has its own line of orders, one after the other; an order that is
not answered, or is answered with 429 or 5xx, is repeated with the same transaction_id until it is.
"""

import asyncio
import json
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from demo.ledger import Ledger, rfc3339

PRODUCTS = range(101, 109)
ANSWER_TIMEOUT_S = 5.0  # what SMS systems wait
_CONNECTIONS = 64
"""An SMS's pool. With one a box all would begin TLS at once when HAProxy is back, in vain.

Each is a client of its own: one client looks through all it has for each order, 10 ms of CPU.
"""
_REPEAT_S = 0.25
_GIVE_UP_S = 120.0
_AGAIN_WITHIN_S = 60.0
_MOST_MESSAGES = 3
BATCH_LINES = 4
"""Orders for each box of a batch."""
_TRANSIENT = {429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Access:
    """What an SMS is given: where, as whom, and whose certificate to trust."""

    url: str
    client_id: str
    client_secret: str
    certificate: Path

    def tls(self) -> ssl.SSLContext:
        """Trust the head-end's certificate and no other."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def token(self, http: httpx.Client) -> str:
        """Fetch an access token."""
        answer = http.post(
            f"{self.url}/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(self.client_id, self.client_secret),
        )
        answer.raise_for_status()
        return str(answer.json()["access_token"])


def read_ledger(path: Path) -> Iterator[dict[str, Any]]:
    """Every 2xx of a ledger file, in order: op, body, answer. None if there is no file yet."""
    if path.exists():
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)


def ledger_of(path: Path) -> Ledger:
    """What a ledger file's orders come to, box by box."""
    ledger = Ledger()
    for line in read_ledger(path):
        ledger.accepted(line["op"], line["body"], line["answer"])
    return ledger


class Sms:
    """The load. Starts and stops; between them orders for every box go out.

    Attributes:
        answered: orders that had their 2xx.
        failed_tries: tries that had none, by what came instead.
        surprises: answers that no order should have had.
        worst_gap_s: the longest time between two 2xx.
        token: its access token.
    """

    def __init__(
        self,
        access: Access,
        ledger: Path,
        device_ids: Sequence[str],
        *,
        seed: int,
        run: str,
        pause_s: float,
        batches: float = 0.05,
        boxes_a_batch: int = 1,
    ) -> None:
        """Orders for so many boxes come about each `pause_s`, this part of them as a batch."""
        self.answered = 0
        self.failed_tries: Counter[str] = Counter()
        self.surprises: list[str] = []
        self.worst_gap_s = 0.0
        self.latencies_s: list[float] = []
        self.token = ""
        self._access = access
        self._ledger = ledger_of(ledger)
        self._file = ledger.open("a", encoding="utf-8")
        self._device_ids = device_ids
        self._seed = seed
        self._run = run
        self._pause_s = pause_s
        self._batches = batches
        self._boxes_a_batch = boxes_a_batch
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sms", daemon=True)
        self._last_at: float | None = None
        self._trouble: BaseException | None = None
        self._give_up_s = _GIVE_UP_S
        self._free: asyncio.LifoQueue[httpx.AsyncClient] = asyncio.LifoQueue()

    def __enter__(self) -> Self:
        with httpx.Client(verify=self._access.tls()) as http:
            self.token = self._access.token(http)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                self._give_up_s = 0.0
            self.stop()
        finally:
            self._file.close()

    def stop(self) -> None:
        """Send no new order; wait until every one under way has its answer."""
        self._stopping.set()
        self._thread.join()
        if self._trouble is not None and self._give_up_s:
            raise self._trouble

    def reset_gap(self) -> None:
        """Measure the worst gap anew from here."""
        self.worst_gap_s, self._last_at = 0.0, time.monotonic()

    def _work(self) -> None:
        try:
            asyncio.run(self._all())
        except Exception as error:  # noqa: BLE001 (told to the test by `stop`)
            self._trouble = error

    async def _all(self) -> None:
        tls = self._access.tls()
        async with AsyncExitStack() as stack:
            for _ in range(_CONNECTIONS):
                client = httpx.AsyncClient(
                    base_url=self._access.url,
                    verify=tls,
                    timeout=ANSWER_TIMEOUT_S,
                    headers={"Authorization": f"Bearer {self.token}"},
                )
                self._free.put_nowait(await stack.enter_async_context(client))
            async with asyncio.TaskGroup() as group:
                for first in range(0, len(self._device_ids), self._boxes_a_batch):
                    together = self._device_ids[first : first + self._boxes_a_batch]
                    group.create_task(self._serve(together))

    async def _serve(self, device_ids: Sequence[str]) -> None:
        """Boxes that share batches: order after order until told to stop."""
        chance = random.Random(f"{self._seed} {device_ids[0]}")
        numbers = count(1)
        await asyncio.sleep(chance.random() * self._pause_s)
        while not self._stopping.is_set():
            inactive = [one for one in device_ids if not self._is_active(one)]
            is_batch = not inactive and chance.random() < self._batches
            if is_batch:
                chosen = [one for one in device_ids for _ in range(BATCH_LINES)]
            else:
                chosen = [chance.choice(inactive or device_ids)]
            orders = [self._next(one, chance, is_batch=is_batch) for one in chosen]
            for device_id, order, number in zip(chosen, orders, numbers, strict=False):
                order["transaction_id"] = f"{self._run}-{device_id}-{number}"
            if is_batch:
                await self._batch(orders)
            else:
                await self._one(orders[0])
            await asyncio.sleep(self._pause_s * chance.uniform(0.5, 1.5))

    def _is_active(self, device_id: str) -> bool:
        box = self._ledger.boxes.get(device_id)
        return box is not None and box.active

    def _next(self, device_id: str, chance: random.Random, *, is_batch: bool) -> dict[str, Any]:
        """The next order for a box that nothing speaks against."""
        if not self._is_active(device_id):
            return {"op": "adddevice", "device_id": device_id}
        box = self._ledger.boxes[device_id]
        grant: dict[str, Any] = {"op": "addentitlement", "device_id": device_id}
        kinds = {"addentitlement": 45, "removeentitlement": 20}
        if not is_batch:
            kinds |= {"generateosm": 15, "removeosm": 15, "removedevice": 5}
            if not box.messages:
                del kinds["removeosm"]
            if len(box.messages) >= _MOST_MESSAGES:
                del kinds["generateosm"]
        [op] = chance.choices(list(kinds), weights=list(kinds.values()))
        product_id = chance.choice(PRODUCTS)
        if op == "addentitlement":
            starts_at = datetime.now(UTC) + timedelta(days=chance.choice((0, 0, 5)))
            ends_at = starts_at + timedelta(days=chance.randint(1, 20))
            grant |= {"product_id": product_id, "starts_at": rfc3339(starts_at)}
            return grant | ({"ends_at": rfc3339(ends_at)} if chance.random() < 0.7 else {})
        if op == "removeentitlement":
            return {"op": op, "device_id": device_id, "product_id": product_id}
        if op == "generateosm":
            text = f"Grüße {chance.randrange(10**6)}"
            return {"op": op, "device_id": device_id, "text": text, "duration_s": 0}
        if op == "removeosm":
            return {"op": op, "message_id": chance.choice(sorted(box.messages))}
        return {"op": op, "device_id": device_id}

    async def _one(self, order: dict[str, Any]) -> None:
        body = {name: value for name, value in order.items() if name != "op"}
        answer = await self._answer(f"/{order['op']}", json.dumps(body), 202)
        if answer is not None:
            self._book(order["op"], body, answer.json())

    async def _batch(self, orders: list[dict[str, Any]]) -> None:
        waiting = dict(enumerate(orders, start=1))
        while waiting:
            lines = "\n".join(json.dumps(order) for order in waiting.values())
            answer = await self._answer("/batch", lines, 200)
            if answer is None:
                return
            numbers = list(waiting)
            for line in answer.text.splitlines():
                said = json.loads(line)
                order = waiting.pop(numbers[said["line"] - 1])
                body = {name: value for name, value in order.items() if name != "op"}
                if said["status"] == "accepted":
                    said["accepted_at"] = rfc3339(datetime.now(UTC))  # a batch does not tell
                    self._book(order["op"], body, said)
                elif said["code"] == "unavailable":
                    waiting[numbers[said["line"] - 1]] = order
                    self.failed_tries["batch line"] += 1
                else:
                    self.surprises.append(f"{order}: {said}")
            waiting = dict(sorted(waiting.items()))

    async def _answer(self, path: str, content: str, good: int) -> httpx.Response | None:
        """Repeat until there is an answer that says yes or no; None: it said no."""
        began = time.monotonic()
        while True:
            try:
                answer = await self._post(path, content)
            except httpx.TransportError as error:
                self.failed_tries[type(error).__name__] += 1
            else:
                if answer.status_code == good:
                    now = time.monotonic()
                    self.latencies_s.append(now - began)
                    if self._last_at is not None:
                        self.worst_gap_s = max(self.worst_gap_s, now - self._last_at)
                    self._last_at = now
                    return answer
                if answer.status_code not in _TRANSIENT:
                    self.surprises.append(f"{content}: {answer.status_code} {answer.text}")
                    return None
                self.failed_tries[str(answer.status_code)] += 1
            if time.monotonic() - began > self._give_up_s:
                raise AssertionError(f"no answer for {self._give_up_s:.0f} s: {content}")
            await asyncio.sleep(_REPEAT_S)

    async def _post(self, path: str, content: str) -> httpx.Response:
        """On a connection that is free, as soon as there is one."""
        http = await self._free.get()
        try:
            return await http.post(path, content=content)
        finally:
            self._free.put_nowait(http)

    def _book(self, op: str, body: dict[str, Any], answer: dict[str, Any]) -> None:
        self.answered += 1
        self._ledger.accepted(op, body, answer)
        line = {"op": op, "body": body, "answer": answer}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()


def wait_for_orders(sms: Sms, count: int = 30) -> None:
    """Wait until so many more orders have had their 2xx."""
    wanted = sms.answered + count
    end = time.monotonic() + _AGAIN_WITHIN_S
    while sms.answered < wanted:
        assert time.monotonic() < end, sms.failed_tries
        time.sleep(0.02)
