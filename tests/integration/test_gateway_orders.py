"""Orders through HTTP into a real database."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gateway_sms
import pytest
from gateway_sms import Sms, gateway, give_keys, token
from sqlalchemy import Engine

from portcullis.gateway.writer import GROUP
from portcullis.store.database import writing
from portcullis.store.orders import (
    DatabaseUnavailableError,
    NewRequest,
    Result,
    apply_requests,
)
from portcullis.store.schema import device_work

DEVICE = "1234567890"


def run(database_url: str, tmp_path: Path, scenario: Any, **options: Any) -> None:  # noqa: ANN401 (a coroutine function)
    """Play a scenario against a gateway with one product and one device key."""

    async def play() -> None:
        async with gateway(database_url, tmp_path / "requests.jsonl", **options) as sms:
            give_keys(sms.engine, int(DEVICE), 7, 8, 9)
            await scenario(sms)

    asyncio.run(play())


async def set_up(sms: Sms) -> None:
    """One active device, one product."""
    assert (await sms.http.put("/products/101", json={"name": "Sport"})).status_code == 201
    response = await sms.post("/adddevice", transaction_id="t-add", device_id=DEVICE)
    assert response.status_code == 202, response.text


def test_an_accepted_order_is_state_work_request_and_log_line(
    database_url: str, tmp_path: Path
) -> None:
    """202 comes after state, `wanted`, request row and log line."""

    async def scenario(sms: Sms) -> None:
        await set_up(sms)
        response = await sms.post(
            "/addentitlement",
            transaction_id="t-1",
            device_id=DEVICE,
            product_id=101,
            starts_at="2026-01-01T00:00:00.9+01:00",
        )
        assert response.status_code == 202, response.text
        answer = response.json()
        assert answer["status"] == "accepted"
        device = await sms.get(f"/devices/{DEVICE}")
        assert device["status"] == "active"
        assert device["entitlements"] == [
            {"product_id": 101, "starts_at": "2025-12-31T23:00:00Z", "ends_at": None}
        ]
        work = sms.work(int(DEVICE))
        assert (work.wanted, work.state_wanted, work.cause) == (2, 2, "order")
        assert work.due_at == work.dirty_at or work.due_at > work.dirty_at
        row = sms.request_rows()[-1]
        assert (row.request_id, row.outcome, row.wanted) == (answer["request_id"], "accepted", 2)
        line = sms.log_lines()[-2]
        assert (line["request_id"], line["outcome"]) == (answer["request_id"], "ok")
        where = await sms.get(f"/requests/{answer['request_id']}")
        assert where["status"] == "accepted"
        assert (await sms.get("/requests", transaction_id="t-1")) == where

    run(database_url, tmp_path, scenario)


def test_the_same_transaction_gets_the_same_answer_and_changes_nothing(
    database_url: str, tmp_path: Path
) -> None:
    """A replay, also one that omits the start again, is answered from the first."""

    async def scenario(sms: Sms) -> None:
        await set_up(sms)
        body = {"transaction_id": "t-2", "device_id": DEVICE, "product_id": 101}
        first = await sms.post("/addentitlement", **body)
        second = await sms.post("/addentitlement", **body)
        assert first.json() == second.json()
        assert sms.work(int(DEVICE)).wanted == 2
        other = await sms.post("/addentitlement", **body | {"product_id": 102})
        assert (other.status_code, other.json()["code"]) == (409, "transaction_conflict")
        broken = await sms.post("/addentitlement", **body | {"product_id": "x"})
        assert broken.json()["code"] == "transaction_conflict"

    run(database_url, tmp_path, scenario)


def test_a_message_has_one_id_however_often_it_is_asked_for(
    database_url: str, tmp_path: Path
) -> None:
    """Generateosm is replayed with its message_id; removeosm ends it; a second one finds none."""

    async def scenario(sms: Sms) -> None:
        await set_up(sms)
        body = {"transaction_id": "m-1", "device_id": DEVICE, "text": "Grüße", "duration_s": 5}
        answers = [(await sms.post("/generateosm", **body)).json() for _ in range(2)]
        assert answers[0] == answers[1]
        message_id = answers[0]["message_id"]
        device = await sms.get(f"/devices/{DEVICE}")
        assert [(m["message_id"], m["text"]) for m in device["messages"]] == [(message_id, "Grüße")]
        assert sms.work(int(DEVICE)).state_wanted == 1
        gone = await sms.post("/removeosm", transaction_id="m-2", message_id=message_id)
        assert gone.status_code == 202, gone.text
        assert (await sms.get(f"/devices/{DEVICE}"))["messages"] == []
        again = await sms.post("/removeosm", transaction_id="m-3", message_id=message_id)
        assert again.json()["code"] == "unknown_message"

    run(database_url, tmp_path, scenario)


def test_a_device_that_is_added_again_has_no_rights(database_url: str, tmp_path: Path) -> None:
    """Removedevice ends rights and messages, in one group with what comes before and after."""

    async def scenario(sms: Sms) -> None:
        await set_up(sms)
        lines = [
            {"op": "addentitlement", "transaction_id": "b-1", "product_id": 101},
            {"op": "generateosm", "transaction_id": "b-2", "text": "a", "duration_s": 1},
            {"op": "removedevice", "transaction_id": "b-3"},
            {"op": "addentitlement", "transaction_id": "b-4", "product_id": 101},
            {"op": "adddevice", "transaction_id": "b-5"},
            {"op": "generateosm", "transaction_id": "b-6", "text": "b", "duration_s": 1},
        ]
        ndjson = "\n".join(json.dumps(line | {"device_id": DEVICE}) for line in lines) + "\n\n"
        response = await sms.http.post("/batch", content=ndjson)
        assert response.status_code == 200
        answers = [json.loads(line) for line in response.text.splitlines()]
        assert [a["line"] for a in answers] == [1, 2, 3, 4, 5, 6]
        assert [a.get("code") for a in answers] == [*[None] * 3, "device_not_active", None, None]
        device = await sms.get(f"/devices/{DEVICE}")
        assert device["entitlements"] == []
        assert [message["text"] for message in device["messages"]] == ["b"]
        assert sms.work(int(DEVICE)).wanted == 6

    run(database_url, tmp_path, scenario)


BAD: list[tuple[str, dict[str, Any], int, str]] = [
    ("adddevice", {"device_id": DEVICE}, 409, "device_exists"),
    ("adddevice", {"device_id": "55"}, 409, "no_device_key"),
    ("adddevice", {"device_id": "0"}, 422, "invalid_value"),
    ("adddevice", {"device_id": 7}, 422, "invalid_value"),
    ("adddevice", {"device_id": "1099511627776"}, 422, "invalid_value"),
    ("adddevice", {"device_id": "7", "extra": 1}, 422, "invalid_value"),
    ("removedevice", {"device_id": "55"}, 404, "unknown_device"),
    ("removeosm", {"message_id": 99}, 404, "unknown_message"),
    ("addentitlement", {"device_id": DEVICE, "product_id": 9}, 404, "unknown_product"),
    ("addentitlement", {"device_id": DEVICE, "product_id": 0}, 422, "invalid_value"),
    (
        "addentitlement",
        {"device_id": DEVICE, "product_id": 101, "ends_at": "2020-01-01T00:00:00Z"},
        422,
        "invalid_window",
    ),
    (
        "addentitlement",
        {"device_id": DEVICE, "product_id": 101, "ends_at": "2030-01-01T00:00:00"},
        422,
        "invalid_value",
    ),
    (
        "generateosm",
        {"device_id": DEVICE, "text": "x" * 1001, "duration_s": 1},
        422,
        "text_too_long",
    ),
    ("generateosm", {"device_id": DEVICE, "text": "", "duration_s": 1}, 422, "invalid_value"),
]


def test_what_is_refused_says_why_and_leaves_a_row_and_a_line(
    database_url: str, tmp_path: Path
) -> None:
    """Each bad order: a problem with its code, a row of `requests`, a log line; nothing changes."""

    async def scenario(sms: Sms) -> None:
        await set_up(sms)
        for number, (kind, body, status, code) in enumerate(BAD):
            response = await sms.post(f"/{kind}", transaction_id=f"bad-{number}", **body)
            problem = response.json()
            assert (response.status_code, problem["code"]) == (status, code), response.text
            assert response.headers["content-type"] == "application/problem+json"
            row = sms.request_rows()[-1]
            assert (row.request_id, row.outcome) == (problem["request_id"], code)
            assert row.transaction_id == f"bad-{number}"
            line = sms.log_lines()[-1]
            assert (line["outcome"], line["request_id"]) == (code, row.request_id)
            where = await sms.get(f"/requests/{row.request_id}")
            assert (where["status"], where["code"]) == ("refused", code)
        assert sms.work(int(DEVICE)).wanted == 1
        # A refusal does not use the id up.
        response = await sms.post("/adddevice", transaction_id="bad-1", device_id="7")
        assert response.status_code == 202

    run(database_url, tmp_path, scenario)


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"transaction_id": "\\ud800"}', b""])
def test_a_body_that_is_no_json_object_is_malformed(
    database_url: str, tmp_path: Path, body: bytes
) -> None:
    """400, and kept as it was received."""

    async def scenario(sms: Sms) -> None:
        response = await sms.http.post("/adddevice", content=body)
        assert (response.status_code, response.json()["code"]) == (400, "malformed")
        assert sms.request_rows()[-1].outcome == "malformed"

    run(database_url, tmp_path, scenario)


def test_who_may_not_is_told_as_rfc_6750_wants(database_url: str, tmp_path: Path) -> None:
    """401 without and with a bad token, 403 with the scope that is missing."""

    async def scenario(sms: Sms) -> None:
        order = {"transaction_id": "t", "device_id": DEVICE}
        refused = await sms.http.post("/adddevice", json=order)
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
        assert 'scope="device"' in refused.headers["www-authenticate"]
        assert sms.request_rows()[-1].outcome == "insufficient_scope"
        for header, error in (("", False), ("Bearer nonsense", True)):
            response = await sms.http.post(
                "/adddevice", json=order, headers={"Authorization": header}
            )
            assert response.status_code == 401
            assert ("invalid_token" in response.headers["www-authenticate"]) is error
        assert len(sms.request_rows()) == 1
        assert (await sms.http.get("/openapi.json", headers={"Authorization": ""})).is_success

    run(database_url, tmp_path, scenario, bearer=token(scopes=("message", "read")))


def test_a_claimed_device_keeps_the_deadline_of_its_claim(
    database_url: str, tmp_path: Path
) -> None:
    """An order for a device in work raises `wanted` alone: the claim's deadline stands."""

    async def scenario(sms: Sms) -> None:
        await set_up(sms)
        with writing(sms.engine) as connection:
            connection.execute(
                device_work.update().values(claim_token="c", claim_wanted=1, tries=3)
            )
        due_at = sms.work(int(DEVICE)).due_at
        await sms.post("/addentitlement", transaction_id="x", device_id=DEVICE, product_id=101)
        work = sms.work(int(DEVICE))
        assert (work.wanted, work.claim_wanted, work.due_at) == (2, 1, due_at)

    run(database_url, tmp_path, scenario)


def test_two_gateways_at_once_do_every_order_once(database_url: str, tmp_path: Path) -> None:
    """The same 120 orders sent to both at the same time: one request each, one answer each."""

    async def play() -> None:
        async with (
            gateway(database_url, tmp_path / "a.jsonl") as first,
            gateway(database_url, tmp_path / "b.jsonl") as second,
        ):
            give_keys(first.engine, int(DEVICE), 7, 8, 9)
            await first.http.put("/products/101", json={"name": "Sport"})
            orders: list[tuple[str, dict[str, Any]]] = []
            for device_id in ("7", "8", "9", DEVICE):
                same = {"transaction_id": f"add-{device_id}", "device_id": device_id}
                answers = await asyncio.gather(
                    *(sms.post("/adddevice", **same) for sms in (first, second))
                )
                assert [answer.status_code for answer in answers] == [202, 202]
                assert answers[0].json() == answers[1].json()
                for number in range(29):
                    kind = "addentitlement" if number % 3 else "removeentitlement"
                    body = {
                        "transaction_id": f"{device_id}-{number}",
                        "device_id": device_id,
                        "product_id": 101,
                    }
                    orders.append((f"/{kind}", body))
            one = [first.post(path, **body) for path, body in orders]
            two = [second.post(path, **body) for path, body in reversed(orders)]
            answers = await asyncio.gather(*one, *two)
            assert {answer.status_code for answer in answers} == {202}
            ids = [answer.json()["request_id"] for answer in answers]
            assert ids[: len(orders)] == ids[: len(orders) - 1 : -1]
            for device_id in (7, 8, 9, int(DEVICE)):
                assert first.work(device_id).wanted == 30
            wanted = [row.wanted for row in first.request_rows() if row.device_id == 7]
            assert sorted(wanted) == list(range(1, 31))

    asyncio.run(play())


def test_two_gateways_add_one_device_once(database_url: str, tmp_path: Path) -> None:
    """Different transactions for one new device: one is accepted, the other told it is there."""

    async def play() -> None:
        async with (
            gateway(database_url, tmp_path / "a.jsonl") as first,
            gateway(database_url, tmp_path / "b.jsonl") as second,
        ):
            give_keys(first.engine, *range(1, 21))
            for device_id in range(1, 21):
                answers = await asyncio.gather(
                    first.post(
                        "/adddevice", transaction_id=f"a{device_id}", device_id=str(device_id)
                    ),
                    second.post(
                        "/adddevice", transaction_id=f"b{device_id}", device_id=str(device_id)
                    ),
                )
                assert sorted(answer.status_code for answer in answers) == [202, 409]

    asyncio.run(play())


def test_a_flood_is_turned_away_and_only_sampled(database_url: str, tmp_path: Path) -> None:
    """429 with Retry-After; the database sees nothing of it."""

    async def scenario(sms: Sms) -> None:
        answers = [await sms.http.get("/products") for _ in range(30)]
        turned_away = [answer for answer in answers if answer.status_code == 429]
        assert turned_away
        assert turned_away[0].headers["retry-after"]
        lines = [line for line in sms.log_lines() if line["outcome"] == "rate_limited"]
        assert 1 <= len(lines) < len(turned_away)

    run(database_url, tmp_path, scenario, rate_s=2.0)


def test_a_batch_of_ten_thousand_is_taken_and_one_line_more_is_not(
    database_url: str, tmp_path: Path
) -> None:
    """All lines answered in order; a larger batch or body is refused as a whole, and recorded."""

    async def scenario(sms: Sms) -> None:
        await set_up(sms)
        order = {"op": "addentitlement", "device_id": DEVICE, "product_id": 101}
        lines = [json.dumps(order | {"transaction_id": f"n-{n}"}) for n in range(10_000)]
        response = await sms.http.post("/batch", content="\n".join(lines), timeout=60)
        answers = [json.loads(line) for line in response.text.splitlines()]
        assert [answer["line"] for answer in answers] == list(range(1, 10_001))
        assert {answer["status"] for answer in answers} == {"accepted"}
        assert sms.work(int(DEVICE)).wanted == 10_001
        too_many = await sms.http.post("/batch", content="\n".join([*lines, lines[0]]))
        too_large = await sms.http.post("/adddevice", content=b" " * 65_537)
        for answer in (too_many, too_large):
            assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert [row.outcome for row in sms.request_rows()[-2:]] == ["too_large"] * 2
        assert sms.work(int(DEVICE)).wanted == 10_001

    run(database_url, tmp_path, scenario)


def test_behind_a_group_that_the_database_did_not_take_no_order_of_a_batch_is_tried(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeated as it was, the batch ends in the same rights as if all had been well."""
    groups = itertools.count()

    def away_once(engine: Engine, group: Sequence[NewRequest]) -> list[Result]:
        if len(group) == GROUP and next(groups) == 1:
            raise DatabaseUnavailableError("the database cannot be reached")
        return apply_requests(engine, group)

    monkeypatch.setattr(gateway_sms, "apply_requests", away_once)

    async def scenario(sms: Sms) -> None:
        await set_up(sms)
        ops = ["addentitlement"] * (2 * GROUP) + ["removeentitlement"] * 10
        order = {"device_id": DEVICE, "product_id": 101}
        lines = [
            json.dumps({"op": op, "transaction_id": f"n-{n}"} | order) for n, op in enumerate(ops)
        ]
        for accepted in (GROUP, len(ops)):
            response = await sms.http.post("/batch", content="\n".join(lines), timeout=60)
            answers = [json.loads(line) for line in response.text.splitlines()]
            assert [one["line"] for one in answers] == list(range(1, len(ops) + 1))
            kept = [one["status"] == "accepted" for one in answers]
            assert kept == [n < accepted for n in range(len(ops))]
            assert {one["code"] for one in answers[accepted:]} <= {"unavailable"}
            assert len([line for line in sms.log_lines() if line.get("batch")][-len(ops) :]) == len(
                ops
            )
        assert (await sms.get(f"/devices/{DEVICE}"))["entitlements"] == []

    run(database_url, tmp_path, scenario)
