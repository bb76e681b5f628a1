"""Change of master over real encryptors and databases: killed at any step, it goes on."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, select, update

from portcullis.cli.main import cli
from portcullis.keys import init_masters
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorClient, EncryptorUnavailableError
from portcullis.scheduler.master import (
    MasterChangeError,
    begin_master_change,
    recall_master,
    retire_master,
    rewrap_all,
    verify_all,
)
from portcullis.store import rewrap
from portcullis.store.database import engine_for, writing
from portcullis.store.keys import insert_chain
from portcullis.store.migrate import migrate
from portcullis.store.rewrap import count_by_master, sealed_keys
from portcullis.store.schema import keys
from tests.integration.encryptor_process import (
    EncryptorProcess,
    insert_device_keys,
    running,
    seal_device_keys,
)
from tests.integration.softhsm import SoftHsm

DEVICES = 1100


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database."""
    engine = engine_for(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def encryptor(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EncryptorProcess]:
    """An encryptor with its first master: in a file beside MariaDB, in a token beside SQLite."""
    if database_url.startswith("mysql"):
        process = EncryptorProcess(tmp_path)
        process.init()
    else:
        process = EncryptorProcess(tmp_path, SoftHsm(tmp_path, monkeypatch).toml())
        said = CliRunner().invoke(cli, ["keys", "init", "--config", str(process.config)])
        assert "made" in said.output
    process.start()
    yield process
    process.stop()


def fill(engine: Engine, client: EncryptorClient) -> None:
    """Device keys and two product chains."""
    for first in range(1, DEVICES + 1, 500):
        ids = range(first, min(first + 500, DEVICES + 1))
        insert_device_keys(engine, seal_device_keys(client, ((n, bytes(16)) for n in ids)))
    for product_id in (7, 8):
        insert_chain(engine, client.make_chain(product_id, 1, 64))


def blobs(engine: Engine) -> dict[tuple[str, int, int], bytes]:
    """Every sealed key by its primary key."""
    with engine.connect() as connection:
        rows = connection.execute(select(keys)).mappings()
        return {(r["purpose"], r["owner"], r["first_epoch"]): r["sealed_key"] for r in rows}


class Doomed:
    """A client that dies after so many calls, as its process would."""

    def __init__(self, client: EncryptorClient, calls: int) -> None:
        self._client, self.left = client, calls
        self.address = client.address

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (any of the client's calls)
        call = getattr(self._client, name)

        def once(*arguments: object) -> object:
            answer = call(*arguments)
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return answer

        return once


def test_a_change_killed_after_any_step_goes_on_and_makes_one_master(
    engine: Engine, encryptor: EncryptorProcess
) -> None:
    """At the end every row is under it and opens; the old one opens none, even of a backup."""
    with encryptor.client() as client:
        fill(engine, client)
        before = next(iter(sealed_keys(engine, 500)))
        (old,) = count_by_master(engine)
        crashes = 0
        while True:
            doomed: Any = Doomed(client, crashes)
            try:
                master_id, _ = begin_master_change(engine, [doomed], f"n{crashes}")
                result = rewrap_all(engine, doomed, master_id, lambda _: None)
                break
            except KeyboardInterrupt:
                crashes += 1
        assert crashes > 5  # made, used, and after each answer of the encryptor
        assert result.refused == []
        assert count_by_master(engine) == {master_id: DEVICES + 2}
        states = {one.master_id: one.state for one in client.info().masters}
        assert states == {master_id: pb.Master.CURRENT, old: pb.Master.OLDER}
        assert set(client.verify(before)) == {""}
        retire_master(engine, [client], old)
        assert all(client.verify(before))
        assert verify_all(engine, client, lambda _: None).done == DEVICES + 2
        recall_master(engine, [client], old)
        assert set(client.verify(before)) == {""}


def test_keys_written_meanwhile_are_rewrapped_or_left_whole(
    engine: Engine, encryptor: EncryptorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that changed between reading and writing keeps what it was given."""
    with encryptor.client() as client:
        fill(engine, client)
        (stranger,) = seal_device_keys(client, [(5, b"another key of 5")])
        master_id, is_new = begin_master_change(engine, [client], "n1")
        assert is_new
        replace = rewrap.replace_sealed

        def meddle(engine: Engine, pairs: Any) -> int:  # noqa: ANN401 (as the real one)
            if pairs[0][0].purpose == pb.SealedKey.DEVICE:
                mine = (keys.c.purpose == "device", keys.c.owner == 5)
                changed = update(keys).where(*mine).values(sealed_key=stranger.blob)
                with writing(engine) as connection:
                    connection.execute(changed)
            return replace(engine, pairs)

        monkeypatch.setattr("portcullis.scheduler.master.replace_sealed", meddle)
        result = rewrap_all(engine, client, master_id, lambda _: None)
        assert result.done == DEVICES + 1
        assert blobs(engine)["device", 5, 0] == stranger.blob
        monkeypatch.undo()
        assert rewrap_all(engine, client, master_id, lambda _: None).done == 1
        assert count_by_master(engine) == {master_id: DEVICES + 2}


def test_a_row_that_does_not_open_is_named_and_holds_up_no_other(
    engine: Engine, encryptor: EncryptorProcess
) -> None:
    """Verify finds it, rewrap passes it by, and its master cannot be retired."""
    with encryptor.client() as client:
        fill(engine, client)
        (old,) = count_by_master(engine)
        with writing(engine) as connection:
            moved = select(keys.c.sealed_key).where(keys.c.owner == 5).scalar_subquery()
            blob = connection.execute(select(moved)).scalar_one()
            connection.execute(update(keys).where(keys.c.owner == 6).values(sealed_key=blob))
        alarms = encryptor.metric('portcullis_encryptor_refused_total{code="not_sealed_here"}')
        found = verify_all(engine, client, lambda _: None)
        assert found.done == DEVICES + 1
        ((key, reason),) = found.refused
        assert (key.owner, key.purpose) == (6, pb.SealedKey.DEVICE)
        assert "device key of 6" in reason
        master_id, _ = begin_master_change(engine, [client], "n1")
        assert [one.owner for one, _ in rewrap_all(engine, client, master_id, print).refused] == [6]
        with pytest.raises(MasterChangeError, match="1 keys are sealed"):
            retire_master(engine, [client], old)
        after = encryptor.metric('portcullis_encryptor_refused_total{code="not_sealed_here"}')
        assert after == alarms + 2


def test_a_master_is_not_used_before_every_encryptor_has_the_same(tmp_path: Path) -> None:
    """Two encryptors with files of their own: the operator is told what to copy where."""
    engine = engine_for(f"sqlite:///{tmp_path}/p.db")
    migrate(engine)
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        home.mkdir()
        init_masters(home / "master.json", "m1")
    (homes[1] / "master.json").write_bytes((homes[0] / "master.json").read_bytes())
    one, two = (EncryptorProcess(home) for home in homes)
    with running(one) as first, running(two) as second:
        with pytest.raises(MasterChangeError, match=f"{second.address} has no master n1"):
            begin_master_change(engine, [first, second], "n1")
        assert first.info().masters[0].master_id == "m1"
        second.change_master(pb.ChangeMasterRequest.MAKE, "n1")
        with pytest.raises(MasterChangeError, match="has another master n1"):
            begin_master_change(engine, [first, second], "n2")
        (homes[1] / "master.json").write_bytes((homes[0] / "master.json").read_bytes())
        assert begin_master_change(engine, [first, second], "n2") == ("n1", False)
        assert first.info().masters[0] == second.info().masters[0]


def test_the_command_line_changes_the_master_and_checks_every_key(
    database_url: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotate, list, verify, retire, recall: by commands, with their answers in JSON."""
    monkeypatch.setenv("PORTCULLIS_DATABASE__URL", database_url)
    process = EncryptorProcess(tmp_path)
    process.init()

    def run(*words: str) -> tuple[int, list[dict[str, Any]]]:
        said = CliRunner().invoke(
            cli, ["keys", *words, "--json", "--config", str(process.config)], catch_exceptions=True
        )
        if said.exception is not None and not isinstance(said.exception, SystemExit):
            raise said.exception
        return said.exit_code, [json.loads(line) for line in said.stdout.splitlines()]

    with running(process) as client:
        fill(engine, client)
        status, (answer,) = run("rotate", "--master")
        assert (status, answer["rewrapped"], answer["refused"]) == (0, DEVICES + 2, 0)
        new = answer["master_id"]
        _, listed = run("list")
        masters = {row["master_id"]: row for row in listed if "check_value" in row}
        assert masters[new]["state"] == "current"
        assert (masters[new]["keys"], masters["m1"]["keys"]) == (DEVICES + 2, 0)
        assert run("verify") == (0, [{"opened": DEVICES + 2, "refused": 0}])
        with pytest.raises(MasterChangeError, match="current"):
            run("retire", "--master", new)
        assert run("retire", "--master", "m1") == (0, [{"retired": "m1"}])
        assert [row["master_id"] for row in run("list")[1] if "check_value" in row] == [new]
        assert run("recall", "--master", "m1") == (0, [{"recalled": "m1"}])
        with writing(engine) as connection:
            connection.execute(update(keys).where(keys.c.owner == 6).values(last_epoch=5))
        status, (summary, bad) = run("verify")
        assert (status, summary["refused"], bad["owner"]) == (1, 1, 6)
        assert run("rotate", "--product", "7")[0] == 2
    for row in blobs(engine).values():
        assert row.hex() not in process.log.read_text()


def told(client: EncryptorClient, key: pb.SealedKey, chain: pb.SealedKey) -> bool:
    """Whether a state with the chain's product is sealed for a box."""
    now = int(time.time())
    state = pb.State(active=True, utc=now)
    state.entitlements.add(product_id=chain.owner, epoch=1, key=0)
    item = pb.SealItem(address=key.owner, number=now, device_key=key, state=state)
    return bool(client.seal(0xFFF0, [chain], [item]).items[0].sections)


def test_an_encryptor_whose_token_goes_away_is_unready_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that need it say that they may be made again, but boxes kept opened are told on."""
    token = SoftHsm(tmp_path, monkeypatch)
    process = EncryptorProcess(tmp_path, token.toml())
    CliRunner().invoke(cli, ["keys", "init", "--config", str(process.config)])
    with running(process) as client:
        process.wait_ready()
        chain = client.make_chain(7, 1, 64)
        kept, other = seal_device_keys(client, [(1, b"k" * 16), (2, b"o" * 16)])
        assert told(client, kept, chain)
        token.away()
        with pytest.raises(EncryptorUnavailableError, match="away"):
            client.rewrap([chain])
        assert told(client, kept, chain)
        with pytest.raises(EncryptorUnavailableError, match="away"):
            told(client, other, chain)
        assert "masters" in (process.ready() or {})
        token.back()
        process.wait_ready()
        assert client.verify([chain]) == [""]
