"""A database that denies a right is not one that is away: who can mend it is told what to grant."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from gateway_sms import gateway, give_keys
from granted import users
from house import wait_until
from sqlalchemy import Engine, text

from portcullis.cli import main
from portcullis.emmg.config import EmmgConfig
from portcullis.emmg.worker import Worker
from portcullis.gateway.writer import Writer
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.store.database import engine_for
from portcullis.store.orders import DatabaseDeniedError, NewRequest, Refused, apply_requests


@pytest.fixture
def urls(mariadb_url: str) -> Iterator[dict[str, str]]:
    """Service → URL of the database as its user; as its owner under "owner"."""
    with users(mariadb_url) as urls:
        yield urls | {"owner": mariadb_url}


@contextmanager
def without(owner: Engine, right: str, table: str, user: str) -> Iterator[None]:
    """Take a right away for a while."""
    with owner.begin() as connection:
        connection.execute(text(f"REVOKE {right} ON `{table}` FROM portcullis_{user}@'%'"))
    yield
    with owner.begin() as connection:
        connection.execute(text(f"GRANT {right} ON `{table}` TO portcullis_{user}@'%'"))


def test_an_order_waits_for_a_right_that_the_operator_is_told_of(
    urls: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SMS gets 503 and repeats, and learns nothing of tables; once granted, it is accepted."""
    owner = engine_for(urls["owner"], pool_size=1)
    give_keys(owner, 7)
    order = {"transaction_id": "t", "device_id": "7"}
    told: list[str] = []
    log = SimpleNamespace(
        error=lambda _text, reason: told.append(reason), info=lambda _text: told.append("again")
    )
    monkeypatch.setattr("portcullis.gateway.writer.log", log)

    async def play() -> None:
        async with gateway(urls["gateway"], tmp_path / "requests.jsonl") as sms:
            with without(owner, "INSERT", "transactions", "gateway"):
                refused = [await sms.post("/adddevice", **order) for _ in range(3)]
            for answer in refused:
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
                assert answer.json()["detail"] == "the database denies the head-end a right"
            assert (await sms.post("/adddevice", **order)).status_code == 202
            assert [row.outcome for row in sms.request_rows()] == ["accepted"]

    asyncio.run(play())
    owner.dispose()
    reason, again = told  # once, not with each try
    assert "INSERT command denied to user 'portcullis_gateway'" in reason
    assert "transactions" in reason
    assert again == "again"


def test_readiness_says_what_is_denied_until_an_order_is_written(urls: dict[str, str]) -> None:
    """What `/readyz` shows and an alert watches names user and table."""
    owner, engine = (engine_for(urls[user], pool_size=1) for user in ("owner", "gateway"))
    give_keys(owner, 7)
    order = NewRequest("sms", "t", "adddevice", {}, b"h" * 32, device_id=7)

    async def play() -> None:
        writer = Writer(partial(apply_requests, engine), 10)
        with without(owner, "INSERT", "requests", "gateway"):
            [said] = await writer.submit([order])
        assert isinstance(said, Refused)
        assert writer.denied is not None
        assert "INSERT command denied to user 'portcullis_gateway'" in writer.denied
        assert "requests" in writer.denied
        await writer.submit([order])
        assert writer.denied is None
        await writer.stop(10)

    asyncio.run(play())
    for one in (owner, engine):
        one.dispose()


def test_a_command_ends_with_the_right_that_it_lacks(
    urls: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, not a word of a database that cannot be reached, and no retrying."""
    owner = engine_for(urls["owner"], pool_size=1)
    monkeypatch.setenv("PORTCULLIS_DATABASE__URL", urls["keys"])
    monkeypatch.setattr("sys.argv", ["portcullis", "devices", "rehit", "7"])
    with without(owner, "INSERT", "requests", "keys"), pytest.raises(SystemExit) as ended:
        main.main()
    owner.dispose()
    assert ended.value.code == DatabaseDeniedError.exit_code
    said = capsys.readouterr().err
    assert said.startswith("portcullis: the database denies a right: INSERT command denied")
    assert "portcullis_keys" in said
    assert "requests" in said


def test_an_emmg_says_which_right_it_lacks_and_goes_on_once_it_is_granted(
    urls: dict[str, str],
) -> None:
    """What `/readyz` shows as the worker's trouble; it does not end over it."""
    owner, engine = (engine_for(urls[user], pool_size=1) for user in ("owner", "emmg"))
    stopping = threading.Event()
    # Nothing can be claimed, so that the encryptor is not come to.
    worker = Worker(engine, EncryptorClient("unix:/nowhere"), EmmgConfig(), stopping)
    thread = threading.Thread(target=worker.run)
    try:
        with without(owner, "SELECT", "device_work", "emmg"):
            thread.start()
            wait_until(lambda: worker.trouble is not None, "the worker's trouble")
            trouble = str(worker.trouble)
        assert trouble.startswith("database: the database denies a right: ")
        assert "command denied to user 'portcullis_emmg'" in trouble
        assert "device_work" in trouble
        wait_until(lambda: worker.trouble is None, "no trouble")
    finally:
        stopping.set()
        thread.join()
    for one in (owner, engine):
        one.dispose()
