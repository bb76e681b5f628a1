"""A re-hit: an order that changes nothing but has all of a box's EMMs sealed and aired again."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway_sms import Sms, gateway, give_keys, token
from sqlalchemy import insert, select, update

from portcullis.runtime.oauth import SCOPES
from portcullis.store.database import writing
from portcullis.store.schema import AGAIN, messages, recoveries, requests
from portcullis.store.to_seal import read_orders


def run(database_url: str, tmp_path: Path, scenario: Any) -> None:  # noqa: ANN401 (a coroutine function)
    """Play a scenario against a gateway with device 7, which has two messages on air."""

    async def play() -> None:
        async with gateway(database_url, tmp_path / "requests.jsonl") as sms:
            give_keys(sms.engine, 7)
            await sms.post("/adddevice", transaction_id="add", device_id="7")
            for number in ("1", "2"):
                text = {"device_id": "7", "text": number, "duration_s": 0}
                await sms.post("/generateosm", transaction_id=f"m{number}", **text)
            with writing(sms.engine) as connection:
                connection.execute(update(messages).values(sealed=1))
            await scenario(sms)

    asyncio.run(play())


def sealed(sms: Sms) -> list[tuple[int, int]]:
    """`sealed` and `withdrawal_sealed` of each message."""
    with sms.engine.connect() as connection:
        columns = (messages.c.sealed, messages.c.withdrawal_sealed)
        return [
            tuple(row) for row in connection.execute(select(*columns).order_by(messages.c.text))
        ]


def test_a_rehit_asks_for_state_messages_and_withdrawals_anew(
    database_url: str, tmp_path: Path
) -> None:
    """It is in the record of evidence, and done once however often it is repeated."""

    async def scenario(sms: Sms) -> None:
        [first, _] = [row.message_id for row in sms.request_rows() if row.kind == "generateosm"]
        await sms.post("/removeosm", transaction_id="r1", message_id=first)
        with writing(sms.engine) as connection:
            removed = messages.c.removed_at.is_not(None)
            connection.execute(update(messages).where(removed).values(withdrawal_sealed=1))
        before = sms.work(7)
        assert not read_orders(sms.engine, [7]).messages
        order = {"transaction_id": "again", "device_id": "7"}
        answers = [await sms.post("/rehit", **order) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]
        assert answers[0].json() == answers[1].json()
        work = sms.work(7)
        assert (work.wanted, work.state_wanted) == (before.wanted + 1, before.wanted + 1)
        assert (work.cause, work.due_at is not None) == ("order", True)
        assert sealed(sms) == [(1, AGAIN), (AGAIN, 0)]
        assert [row["text"] for row in read_orders(sms.engine, [7]).messages[7]] == ["1", "2"]
        [row] = [one for one in sms.request_rows() if one.kind == "rehit"]
        assert (row.outcome, row.chain_seq) == ("accepted", 5)
        state = await sms.get("/requests", transaction_id="again")
        assert (state["kind"], state["status"]) == ("rehit", "accepted")
        # A message that is to be sealed again and is then removed is still withdrawn.
        await sms.post("/removeosm", transaction_id="r2", message_id=first + 1)
        texts = read_orders(sms.engine, [7]).messages[7]
        assert [one["removed_at"] is not None for one in texts] == [True, True]

    run(database_url, tmp_path, scenario)


def test_who_may_not_and_what_is_not_there_is_refused(database_url: str, tmp_path: Path) -> None:
    """A removed box may be told again that it is; one of a restored database may not."""

    async def scenario(sms: Sms) -> None:
        scopes = tuple(scope for scope in SCOPES if scope != "rehit")
        headers = {"Authorization": f"Bearer {token(scopes=scopes)}"}
        order = {"transaction_id": "a", "device_id": "7"}
        refused = await sms.http.post("/rehit", json=order, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
        unknown = await sms.post("/rehit", transaction_id="b", device_id="8")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_device")
        await sms.post("/removedevice", transaction_id="c", device_id="7")
        assert (await sms.post("/rehit", transaction_id="d", device_id="7")).status_code == 202
        now = datetime.now(UTC)
        with writing(sms.engine) as connection:
            times = {"backup_at": now - timedelta(hours=1), "restored_at": now}
            connection.execute(insert(recoveries).values(**times))
        restored = await sms.post("/rehit", transaction_id="e", device_id="7")
        assert (restored.status_code, restored.json()["code"]) == (403, "not_permitted")
        with sms.engine.connect() as connection:
            kinds = connection.execute(
                select(requests.c.outcome).where(requests.c.kind == "rehit")
            ).scalars()
            assert sorted(kinds) == [
                "accepted",
                "insufficient_scope",
                "not_permitted",
                "unknown_device",
            ]

    run(database_url, tmp_path, scenario)
