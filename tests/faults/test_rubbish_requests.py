"""Proof 6: bad requests to a served gateway on MariaDB are refused with a code and do no harm."""

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from sqlalchemy import func, select

from portcullis.store.database import engine_for
from portcullis.store.schema import requests
from tests.conftest import MariaDb
from tests.faults.figures import record
from tests.faults.http_client import Tally, send_all
from tests.faults.http_rubbish import DEVICES, ORDERS, cases, order_case
from tests.faults.scale import IS_FULL
from tests.faults.served_gateway import Gateway
from tests.integration.gateway_sms import give_keys

BYTES_CASES = 95_000 if IS_FULL else 1_200
JSON_EXAMPLES = 300 if IS_FULL else 10
SCHEMA_EXAMPLES = 250 if IS_FULL else 3
ORDERS_AN_EXAMPLE = 25
MAX_GROWTH_MIB = 64
DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"

# A batch's body is any text, and what has no parameters has none to break.
schema = schemathesis.openapi.from_dict(json.loads(DOCUMENT.read_text())).exclude(
    path=["/batch", "/products", "/requests/{request_id}"]
)
schema.config.generation.modes = [GenerationMode.NEGATIVE]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    st.text(),
    st.datetimes().map(str),
    st.sampled_from(DEVICES),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
order_fields = st.sampled_from(ORDERS).flatmap(
    lambda order: st.tuples(
        st.just(order[0]),
        st.dictionaries(
            st.sampled_from(["transaction_id", *order[1]]) | st.text(max_size=12), values
        ),
    )
)


class Thrown:
    """The gateway, and what was thrown at it by all tests of this module."""

    def __init__(self, gateway: Gateway, url: str) -> None:
        self.gateway = gateway
        self.url = url
        self.token = gateway.token()
        self.tally = Tally()
        self.by_schema = 0
        self.by_hypothesis = 0
        self.started = time.monotonic()


@pytest.fixture(scope="module")
def thrown(mariadb: MariaDb, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thrown]:
    """A gateway with devices' keys; it must come through all that this module throws at it."""
    url = mariadb.new_database()
    gateway = Gateway(tmp_path_factory.mktemp("rubbish"), url)
    give_keys(engine_for(url), *map(int, DEVICES))
    thrown = Thrown(gateway, url)
    yield thrown
    try:
        _came_through(thrown)
    finally:
        gateway.end()


def _came_through(thrown: Thrown) -> None:
    """Alive, ready, no error of its own logged, each refusal recorded once, a good order taken."""
    gateway, tally = thrown.gateway, thrown.tally
    assert gateway.errors_logged() == []
    assert gateway.is_ready()
    with httpx.Client(
        base_url=gateway.url, headers={"Authorization": f"Bearer {thrown.token}"}
    ) as sms:
        good = {"transaction_id": "good", "product_id": 101, "device_id": "8"}
        assert sms.put("/products/101", json={"name": "Sport"}).status_code in (200, 201)
        sms.post("/adddevice", json={"transaction_id": "first", "device_id": "8"})
        assert sms.post("/addentitlement", json=good).status_code == 202
    engine = engine_for(thrown.url, pool_size=1)
    with engine.connect() as connection:
        kept = connection.execute(
            select(func.count()).where(requests.c.request_id.in_(list(tally.request_ids)))
        ).scalar_one()
    engine.dispose()
    assert kept == len(tally.request_ids)
    assert tally.refused > tally.sent / 2
    record(
        "6-requests",
        "bad requests to a served gateway",
        for_s=time.monotonic() - thrown.started,
        requests=tally.sent,
        refused_with_a_code=tally.refused - tally.hung_up,
        cut_short_and_hung_up_on=tally.hung_up,
        by_schemathesis=thrown.by_schema,
        by_hypothesis=thrown.by_hypothesis,
        gateway_resident_mib=gateway.resident_mib(),
        server_errors=0,
    )


@pytest.mark.timeout(3600)
def test_bad_bytes_are_refused_with_a_code(thrown: Thrown) -> None:
    """HTTP, headers, tokens, paths, bodies: an answer in time, no 5xx, and memory has a bound."""
    every = itertools.islice(cases(seed=1, token=thrown.token), BYTES_CASES)
    asyncio.run(
        send_all(thrown.gateway.port, itertools.islice(every, BYTES_CASES // 4), thrown.tally)
    )
    before_mib = thrown.gateway.resident_mib()
    asyncio.run(send_all(thrown.gateway.port, every, thrown.tally))
    assert thrown.tally.faults == []
    assert thrown.gateway.resident_mib() - before_mib < MAX_GROWTH_MIB


@pytest.mark.timeout(3600)
@settings(
    max_examples=JSON_EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(order_fields, min_size=ORDERS_AN_EXAMPLE, max_size=ORDERS_AN_EXAMPLE))
def test_any_json_is_refused_or_right(thrown: Thrown, orders: list[tuple[str, object]]) -> None:
    """Values of every shape where an order's belong, keys that no order has."""
    made = [order_case(thrown.token, kind, json.dumps(body).encode()) for kind, body in orders]
    asyncio.run(send_all(thrown.gateway.port, made, thrown.tally))
    thrown.by_hypothesis += len(made)
    assert thrown.tally.faults == []


@pytest.mark.timeout(3600)
@schema.parametrize()
@settings(
    max_examples=SCHEMA_EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_what_the_document_forbids_is_refused(case: schemathesis.Case, thrown: Thrown) -> None:
    """Schemathesis, in its negative mode: each operation with what its schema rules out."""
    answer = case.call(
        base_url=thrown.gateway.url, headers={"Authorization": f"Bearer {thrown.token}"}
    )
    thrown.tally.sent += 1
    thrown.by_schema += 1
    content_type = answer.headers.get("content-type", [""])[0]
    thrown.tally.book(repr(case).encode(), answer.status_code, content_type, answer.content)
    assert thrown.tally.faults == []
