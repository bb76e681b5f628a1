"""The committed OpenAPI document, and the gateway held to it."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from gateway_sms import gateway, give_keys, token
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from portcullis.store.database import engine_for
from portcullis.store.migrate import migrate

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
_CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context: object, value: object) -> bytes:
    """Lines as they are: what a batch's body is generated as."""
    return str(value).encode(errors="replace")


schema = schemathesis.openapi.from_dict(json.loads(DOCUMENT.read_text()))


def test_the_committed_document_is_the_one_served(tmp_path: Path) -> None:
    """Without authentication; docs/openapi.json is to be made anew when this fails."""
    url = f"sqlite:///{tmp_path}/p.db"

    async def scenario() -> None:
        async with gateway(url, tmp_path / "requests.jsonl") as sms:
            served = await sms.http.get("/openapi.json", headers={"Authorization": ""})
            assert served.json() == json.loads(DOCUMENT.read_text())

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway with one product and one device, served over TCP from a thread."""
    home = tmp_path_factory.mktemp("gateway")
    engine = engine_for(f"sqlite:///{home}/p.db")
    migrate(engine)
    give_keys(engine, 1234567890)
    started = threading.Event()
    said: dict[str, object] = {}

    async def serve() -> None:
        async with gateway(f"sqlite:///{home}/p.db", home / "requests.jsonl") as sms:
            await sms.http.put("/products/101", json={"name": "Sport"})
            await sms.post("/adddevice", transaction_id="first", device_id="1234567890")
            stop = asyncio.Event()
            async with sms.served() as url:
                said.update(url=url, loop=asyncio.get_running_loop(), stop=stop)
                started.set()
                await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(20)
    yield str(said["url"])
    said["loop"].call_soon_threadsafe(said["stop"].set)  # type: ignore[attr-defined]
    thread.join()
    engine.dispose()


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_gateway_keeps_to_its_document(case: schemathesis.Case, base_url: str) -> None:
    """Whatever is sent: a documented status, its content type and its schema, never a 5xx."""
    case.call_and_validate(
        base_url=base_url, headers={"Authorization": f"Bearer {token()}"}, checks=_CHECKS
    )
