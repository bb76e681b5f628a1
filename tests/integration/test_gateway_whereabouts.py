"""Where orders are, read back through HTTP while EMMG and cycler write what they write."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

from gateway_sms import Sms, gateway, give_keys, token
from sqlalchemy import update

from portcullis.store.database import database_now, engine_for, writing
from portcullis.store.orders import DatabaseUnavailableError, NewRequest, apply_requests
from portcullis.store.schema import airings, device_work


def run(database_url: str, tmp_path: Path, scenario: Any) -> None:  # noqa: ANN401 (a coroutine function)
    """Play a scenario against a gateway with one product and device 7."""

    async def play() -> None:
        async with gateway(database_url, tmp_path / "requests.jsonl") as sms:
            give_keys(sms.engine, 7)
            await sms.http.put("/products/101", json={"name": "Sport"})
            await sms.post("/adddevice", transaction_id="add", device_id="7")
            await scenario(sms)

    asyncio.run(play())


def seal(sms: Sms, wanted: int, message_id: int = 0, *, aired: bool = False) -> None:
    """What emmg (and cycler) note when orders up to `wanted` are sealed (and aired)."""
    with writing(sms.engine) as connection:
        now = database_now(connection)
        connection.execute(
            airings.insert().values(
                device_id=7,
                message_id=message_id,
                wanted=wanted,
                sealed_at=now,
                first_aired_at=now + timedelta(seconds=wanted) if aired else None,
            )
        )
        connection.execute(update(device_work).values(sealed=wanted, sequence=wanted))


async def status(sms: Sms, transaction_id: str) -> str:
    """One word."""
    return str((await sms.get("/requests", transaction_id=transaction_id))["status"])


def test_an_order_goes_from_accepted_to_on_air(database_url: str, tmp_path: Path) -> None:
    """With the times of each step."""

    async def scenario(sms: Sms) -> None:
        assert await status(sms, "add") == "accepted"
        seal(sms, 1)
        assert await status(sms, "add") == "encrypted"
        with writing(sms.engine) as connection:
            connection.execute(update(airings).values(first_aired_at=database_now(connection)))
        where = await sms.get("/requests", transaction_id="add")
        assert where["status"] == "on_air"
        assert where["accepted_at"] <= where["encrypted_at"] <= where["on_air_at"]
        device = await sms.get("/devices/7")
        assert (device["number"], device["last_aired_at"]) == (1, where["on_air_at"])

    run(database_url, tmp_path, scenario)


def test_what_a_later_order_replaced_before_it_was_sealed_is_superseded(
    database_url: str, tmp_path: Path
) -> None:
    """A grant and its revocation in one EMM: the grant names what superseded it."""

    async def scenario(sms: Sms) -> None:
        order = {"device_id": "7", "product_id": 101}
        await sms.post("/addentitlement", transaction_id="grant", **order)
        await sms.post("/removeentitlement", transaction_id="revoke", **order)
        seal(sms, 3, aired=True)
        where = await sms.get("/requests", transaction_id="grant")
        revoke = await sms.get("/requests", transaction_id="revoke")
        assert (where["status"], revoke["status"]) == ("superseded", "on_air")
        assert where["superseded_by"] == revoke["request_id"]
        assert "encrypted_at" not in where
        assert await status(sms, "add") == "on_air"

    run(database_url, tmp_path, scenario)


def test_a_message_has_its_own_airing(database_url: str, tmp_path: Path) -> None:
    """The state's EMM says nothing of it; removed unsealed, neither order waits for ever."""

    async def scenario(sms: Sms) -> None:
        text = {"device_id": "7", "text": "a", "duration_s": 1}
        first = await sms.post("/generateosm", transaction_id="m1", **text)
        second = await sms.post("/generateosm", transaction_id="m2", **text)
        seal(sms, 3, aired=True)
        assert await status(sms, "m1") == "accepted"
        seal(sms, 3, first.json()["message_id"], aired=True)
        assert await status(sms, "m1") == "on_air"
        removal = {"transaction_id": "r2", "message_id": second.json()["message_id"]}
        await sms.post("/removeosm", **removal)
        assert (await status(sms, "m2"), await status(sms, "r2")) == ("accepted", "accepted")
        with writing(sms.engine) as connection:
            connection.execute(update(device_work).values(sealed=4))
        assert (await status(sms, "m2"), await status(sms, "r2")) == ("superseded", "expired")

    run(database_url, tmp_path, scenario)


def test_what_could_not_be_sealed_says_why_until_the_next_order(
    database_url: str, tmp_path: Path
) -> None:
    """`failed` with the error; a new order tries again."""

    async def scenario(sms: Sms) -> None:
        with writing(sms.engine) as connection:
            connection.execute(
                update(device_work).values(
                    failed_at=database_now(connection), due_at=None, last_error="no key", tries=8
                )
            )
        where = await sms.get("/requests", transaction_id="add")
        assert (where["status"], where["error"]) == ("failed", "no key")
        await sms.post("/addentitlement", transaction_id="g", device_id="7", product_id=101)
        work = sms.work(7)
        assert (work.failed_at, work.tries, work.last_error) == (None, 0, None)
        assert work.due_at is not None
        assert await status(sms, "add") == "accepted"

    run(database_url, tmp_path, scenario)


def test_a_client_sees_its_own_requests_alone(database_url: str, tmp_path: Path) -> None:
    """Another client's request is not found, by id or by transaction; its ids are free to use."""

    async def scenario(sms: Sms) -> None:

        where = await sms.get("/requests", transaction_id="add")
        other = {"Authorization": f"Bearer {token('other')}"}
        for path in (f"/requests/{where['request_id']}", "/requests?transaction_id=add"):
            response = await sms.http.get(path, headers=other)
            assert (response.status_code, response.json()["code"]) == (404, "not_found")
        response = await sms.http.post(
            "/removedevice", json={"transaction_id": "add", "device_id": "7"}, headers=other
        )
        assert response.status_code == 202

    run(database_url, tmp_path, scenario)


def test_without_a_database_orders_and_reads_are_unavailable(tmp_path: Path) -> None:
    """503 with Retry-After, a log line, and nothing done; a batch says so as a whole."""
    url = "mysql+pymysql://nobody@127.0.0.1:1/none"

    async def play() -> None:
        async with gateway(url, tmp_path / "requests.jsonl") as sms:
            order = {"transaction_id": "t", "device_id": "7"}
            answers = [
                await sms.post("/adddevice", **order),
                await sms.http.get("/devices/7"),
                await sms.http.post("/batch", content=b'{"op": "adddevice"}'),
            ]
            for answer in answers:
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
                assert answer.headers["retry-after"]
            assert [line["outcome"] for line in sms.log_lines()] == ["unavailable"] * 3

    asyncio.run(play())
    engine = engine_for(url)
    try:
        apply_requests(engine, [NewRequest("sms", "t", "adddevice", {}, b"h", device_id=7)])
    except DatabaseUnavailableError as error:
        assert "nobody" not in str(error)
    else:
        raise AssertionError("a database was there")
