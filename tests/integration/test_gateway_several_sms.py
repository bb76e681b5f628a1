"""Several SMSs on one head-end: each within its devices, products and rate."""

import asyncio
import json
from pathlib import Path
from typing import Any

from gateway_sms import Sms, gateway, give_keys, token

from portcullis.gateway.permits import ClientConfig

CLIENTS = [
    ClientConfig(client_id="north", devices=("1-99",), products=("1-9",)),
    ClientConfig(client_id="south", devices=("100-199",), products=(9, 10), rate_s=10),
    ClientConfig(client_id="*", devices=(), products=()),
    ClientConfig(client_id="sms"),
]


def run(database_url: str, tmp_path: Path, scenario: Any) -> None:  # noqa: ANN401 (a coroutine function)
    """Play a scenario against a gateway with two products and a box of each SMS."""

    async def play() -> None:
        async with gateway(database_url, tmp_path / "requests.jsonl", clients=CLIENTS) as sms:
            give_keys(sms.engine, 5, 105)
            for product_id in (1, 9, 10):
                await sms.http.put(f"/products/{product_id}", json={"name": "x"})
            for device_id in ("5", "105"):
                await sms.post("/adddevice", transaction_id=device_id, device_id=device_id)
            await scenario(sms)

    asyncio.run(play())


def as_client(client_id: str) -> dict[str, str]:
    """Headers of another SMS."""
    return {"Authorization": f"Bearer {token(client_id)}"}


def test_a_client_touches_and_sees_what_is_its_own(database_url: str, tmp_path: Path) -> None:
    """Single orders, each line of a batch, messages by their id, and every read."""

    async def scenario(sms: Sms) -> None:
        north, south = as_client("north"), as_client("south")
        lines = [
            {"op": "addentitlement", "device_id": "5", "product_id": 9},
            {"op": "addentitlement", "device_id": "5", "product_id": 10},
            {"op": "addentitlement", "device_id": "105", "product_id": 9},
            {"op": "removedevice", "device_id": "105"},
            {"op": "generateosm", "device_id": "5", "text": "a", "duration_s": 1},
        ]
        ndjson = "\n".join(
            json.dumps(line | {"transaction_id": f"n{n}"}) for n, line in enumerate(lines)
        )
        batch = await sms.http.post("/batch", content=ndjson, headers=north)
        answers = [json.loads(line) for line in batch.text.splitlines()]
        codes = [answer.get("code") for answer in answers]
        assert codes == [None, "not_permitted", "not_permitted", "not_permitted", None]
        assert [row.outcome for row in sms.request_rows()][-4:-1] == ["not_permitted"] * 3
        message = {"message_id": answers[-1]["message_id"], "transaction_id": "s1"}
        hers = await sms.http.post("/removeosm", json=message, headers=south)
        assert (hers.status_code, hers.json()["code"]) == (403, "not_permitted")
        gone = await sms.http.post("/removeosm", json=message, headers=north)
        assert gone.status_code == 202
        await sms.post("/addentitlement", transaction_id="b", device_id="5", product_id=10)
        seen = (await sms.http.get("/devices/5", headers=north)).json()
        assert [held["product_id"] for held in seen["entitlements"]] == [9]
        for path in ("/devices/105", "/devices/100"):  # whether it is there is not told either
            refused = await sms.http.get(path, headers=north)
            assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted")
        listed = (await sms.http.get("/products", headers=north)).json()["products"]
        assert [product["product_id"] for product in listed] == [1, 9]
        renamed = await sms.http.put("/products/10", json={"name": "y"}, headers=north)
        assert renamed.status_code == 403
        stranger = as_client("stranger")
        order = {"transaction_id": "x", "device_id": "5"}
        for asked in (
            sms.http.post("/removedevice", json=order, headers=stranger),
            sms.http.get("/devices/5", headers=stranger),
        ):
            assert (await asked).status_code == 403
        assert (await sms.http.get("/products", headers=stranger)).json() == {"products": []}
        assert (await sms.get("/devices/105"))["status"] == "active"

    run(database_url, tmp_path, scenario)


def test_a_client_over_its_rate_is_told_when_to_come_again(
    database_url: str, tmp_path: Path
) -> None:
    """429 with Retry-After; the batch's lines count; the others go on, and no row is written."""

    async def scenario(sms: Sms) -> None:
        south, rows = as_client("south"), len(sms.request_rows())
        line = '{"op": "removeosm", "transaction_id": "t", "message_id": 1}\n'
        batch = await sms.http.post("/batch", content=line * 500, headers=south)
        assert batch.status_code == 200
        for path in ("/products", "/devices/105"):
            turned_away = await sms.http.get(path, headers=south)
            assert (turned_away.status_code, turned_away.json()["code"]) == (429, "rate_limited")
            assert 40 <= int(turned_away.headers["retry-after"]) <= 49
        assert (await sms.http.post("/batch", content=line, headers=south)).status_code == 429
        assert len(sms.request_rows()) == rows + 500
        assert (await sms.http.get("/products", headers=as_client("north"))).status_code == 200

    run(database_url, tmp_path, scenario)
