"""Import of vendor key files through a real encryptor: what is taken, refused, gone on with."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, func, select, text

from portcullis.cli.main import cli
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorClient, EncryptorError
from portcullis.scheduler import imports
from portcullis.scheduler.imports import import_vendor_file
from portcullis.scheduler.master import begin_master_change, retire_master, rewrap_all
from portcullis.store.database import engine_for
from portcullis.store.rewrap import sealed_keys
from portcullis.store.schema import key_events, key_imports, keys
from tests.integration.encryptor_process import (
    EncryptorProcess,
    insert_device_keys,
    running,
    seal_device_keys,
)
from tests.integration.softhsm import SoftHsm


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database."""
    engine = engine_for(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def process(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EncryptorProcess:
    """An encryptor with master and import key: in files beside MariaDB, a token beside SQLite."""
    monkeypatch.setenv("PORTCULLIS_DATABASE__URL", database_url)
    custody = "" if "mysql" in database_url else SoftHsm(tmp_path, monkeypatch).toml()
    return EncryptorProcess(tmp_path, custody)


@pytest.fixture
def client(process: EncryptorProcess) -> Iterator[EncryptorClient]:
    """A client of it, running."""
    init(process)
    with running(process) as client:
        yield client


def init(process: EncryptorProcess) -> str:
    """`keys init`; returns the recipient."""
    said = CliRunner().invoke(cli, ["keys", "init", "--json", "--config", str(process.config)])
    assert said.exit_code == 0, said.output
    recipient: str = json.loads(said.stdout)["import_recipient"]
    return recipient


def key_of(device_id: int) -> bytes:
    """A key that tests can tell."""
    return hashlib.sha256(device_id.to_bytes(8, "big")).digest()


def write(path: Path, *lines: str) -> Path:
    """A vendor's file."""
    path.write_text("".join(f"{line}\n" for line in ("device_id,key_hex", *lines)))
    return path


def line(device_id: int, key: bytes | None = None) -> str:
    """A line of it."""
    return f"{device_id},{(key or key_of(device_id)).hex()}"


def encrypted(path: Path, recipient: str, *options: str) -> Path:
    """The file as a vendor sends it, made with the age command."""
    out = path.with_suffix(".age")
    subprocess.run(["age", *options, "-r", recipient, "-o", str(out), str(path)], check=True)
    return out


def run_import(process: EncryptorProcess, path: Path) -> tuple[int, list[dict[str, Any]]]:
    """`keys import-devices`, its status and its lines of JSON."""
    said: Result = CliRunner().invoke(
        cli, ["keys", "import-devices", str(path), "--json", "--config", str(process.config)]
    )
    if said.exception is not None and not isinstance(said.exception, SystemExit):
        raise said.exception
    return said.exit_code, [json.loads(one) for one in said.stdout.splitlines()]


def check_keys(engine: Engine, client: EncryptorClient, device_ids: set[int]) -> None:
    """These devices have the keys of their vendor, and no other device has one."""
    owners: set[int] = set()
    for held in sealed_keys(engine, 500):
        mine = seal_device_keys(client, ((one.owner, key_of(one.owner)) for one in held))
        assert set(client.same_keys(zip(held, mine, strict=True))) == {""}
        owners.update(one.owner for one in held)
    assert owners == device_ids


@pytest.mark.parametrize("form", ["plain", "age", "armored"])
def test_a_file_is_imported_plain_or_encrypted_to_the_head_end(
    form: str, process: EncryptorProcess, client: EncryptorClient, engine: Engine, tmp_path: Path
) -> None:
    """Imported again, every key is found to be there, and none is written."""
    path = write(tmp_path / "keys.csv", *(line(n) for n in range(1, 1203)))
    if form != "plain":
        options = ["--armor"] if form == "armored" else []
        path = encrypted(path, client.info().import_recipient, *options)
    counts = {"imported": 1202, "already_there": 0, "refused": 0, "lines": 1203}
    assert run_import(process, path) == (0, [counts])
    check_keys(engine, client, set(range(1, 1203)))
    counts = {"imported": 0, "already_there": 1202, "refused": 0, "lines": 1203}
    assert run_import(process, path) == (0, [counts])
    log = process.log.read_text()
    assert key_of(7).hex() not in log


def test_lines_that_are_wrong_are_named_and_the_others_taken(
    process: EncryptorProcess, client: EncryptorClient, engine: Engine, tmp_path: Path
) -> None:
    """Another key for a known device, in the file or in the database, is an alarm as well."""
    run_import(process, write(tmp_path / "first.csv", line(1), line(2)))
    path = write(
        tmp_path / "second.csv",
        line(1),
        line(2, b"another key of 2"),
        line(3),
        line(3),
        line(3, b"another key of 3"),
        "4,abcd",
        "five",
        line(6),
    )
    status, (counts, *refused) = run_import(process, path)
    assert status == 1
    assert counts == {"imported": 2, "already_there": 2, "refused": 4, "lines": 9}
    assert [(one["line"], one["device_id"]) for one in refused] == [
        (3, 2),
        (6, 3),
        (7, None),
        (8, None),
    ]
    assert "another key" in refused[0]["reason"]
    assert "16 to 32 bytes" in refused[2]["reason"]
    check_keys(engine, client, {1, 2, 3, 6})
    assert process.metric('portcullis_encryptor_refused_total{code="other_key"}') == 2
    with engine.connect() as connection:
        events = connection.execute(select(key_events).order_by(key_events.c.chain_seq)).all()
    noted = [(one.event, json.loads(one.detail)) for one in events]
    assert [event for event, _ in noted] == [
        "device_keys_imported",
        "device_keys_imported",
        "device_key_refused",
        "device_key_refused",
    ]
    assert (noted[1][1]["count"], noted[2][1]["device_id"], noted[2][1]["line"]) == (2, "2", 3)


def test_a_step_whose_commit_was_not_answered_is_not_counted_twice(
    client: EncryptorClient, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written again, and finds that it was."""
    path = write(tmp_path / "keys.csv", *(line(n) for n in range(1, 11)))
    real = imports.write_imported

    def twice(*arguments: Any) -> None:  # noqa: ANN401 (the real one's)
        real(*arguments)
        real(*arguments)

    monkeypatch.setattr(imports, "write_imported", twice)
    result = import_vendor_file(engine, client, path, lambda _: None)
    assert (result.state.imported, result.state.present) == (10, 0)
    check_keys(engine, client, set(range(1, 11)))


def test_a_file_that_is_damaged_or_for_another_is_refused(
    process: EncryptorProcess, client: EncryptorClient, engine: Engine, tmp_path: Path
) -> None:
    """What came before the damage is authentic and is kept; the whole file then goes on."""
    plain = write(tmp_path / "keys.csv", *(line(n) for n in range(1, 3001)))
    whole = encrypted(plain, client.info().import_recipient).read_bytes()
    cut, bad, foreign = (tmp_path / name for name in ("cut", "bad", "foreign"))
    cut.write_bytes(whole[: len(whole) // 2])
    bad.write_bytes(whole[:-1] + bytes((whole[-1] ^ 1,)))
    (tmp_path / "other").mkdir()
    foreign.write_bytes(encrypted(plain, init(EncryptorProcess(tmp_path / "other"))).read_bytes())
    with pytest.raises(EncryptorError, match="cut short"):
        run_import(process, cut)
    with pytest.raises(EncryptorError, match="damaged"):
        run_import(process, bad)
    with pytest.raises(EncryptorError, match="not encrypted to this head-end"):
        run_import(process, foreign)
    with pytest.raises(EncryptorError, match="no key file"):
        run_import(process, Path(sys.executable))
    good = tmp_path / "good"
    good.write_bytes(whole)
    status, (counts,) = run_import(process, good)
    assert (status, counts["imported"] + counts["already_there"]) == (0, 3000)
    assert counts["already_there"] > 2000
    check_keys(engine, client, set(range(1, 3001)))


class Killed(Exception):  # noqa: N818 (not a failure: it is done to it)
    """The importing process was killed."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_import_killed_anywhere_goes_on_behind_what_it_has_written(
    when: str,
    client: EncryptorClient,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before or after a batch is written: no line is counted twice, none is left out."""
    lines = [line(n) for n in range(1, 2201)]
    path = write(tmp_path / "keys.csv", *lines, line(5, b"another key of 5"), "rubbish")
    monkeypatch.setattr(imports, "_AT_ONCE", 500)
    real = imports.write_imported

    def dying(*arguments: Any) -> None:  # noqa: ANN401 (the real one's)
        if when == "after":
            real(*arguments)
        raise Killed

    runs = 0
    while True:
        runs += 1
        if runs < 5:
            allowed = iter([real] * runs + [dying])
            monkeypatch.setattr(imports, "write_imported", lambda *a, it=allowed: next(it)(*a))
        else:
            monkeypatch.setattr(imports, "write_imported", real)
        try:
            result = import_vendor_file(engine, client, path, lambda _: None)
            break
        except Killed:
            continue
    assert runs > 2
    state = result.state
    assert (state.imported, state.present, state.refused) == (2200, 0, 2)
    check_keys(engine, client, set(range(1, 2201)))
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(key_imports)).scalar_one() == 1


def test_two_imports_of_one_key_at_once_give_it_one_row(
    client: EncryptorClient, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one finds it there, and compares."""
    path = write(tmp_path / "keys.csv", line(1), line(2, b"another key of 2"))
    real = imports.write_imported
    rivals = iter([seal_device_keys(client, [(1, key_of(1)), (2, key_of(2))])])

    def overtaken(*arguments: Any) -> None:  # noqa: ANN401 (the real one's)
        for rival in rivals:
            insert_device_keys(engine, rival)
        real(*arguments)

    monkeypatch.setattr(imports, "write_imported", overtaken)
    result = import_vendor_file(engine, client, path, lambda _: None)
    assert (result.state.imported, result.state.present, result.state.refused) == (0, 1, 1)
    check_keys(engine, client, {1, 2})


def test_the_import_key_follows_a_change_of_master(
    process: EncryptorProcess, client: EncryptorClient, engine: Engine, tmp_path: Path
) -> None:
    """A file that was encrypted long before still opens once the old master is retired."""
    recipient = client.info().import_recipient
    path = encrypted(write(tmp_path / "keys.csv", line(1)), recipient)
    old = client.info().masters[0].master_id
    master_id, _ = begin_master_change(engine, [client], "n1")
    rewrap_all(engine, client, master_id, lambda _: None)
    retire_master(engine, [client], old)
    assert client.info().import_recipient == recipient
    assert run_import(process, path)[0] == 0


def test_a_caller_that_hangs_up_leaves_the_encryptor_free_for_the_next(
    client: EncryptorClient,
) -> None:
    """While an import runs a second one is told to wait, and sealing goes on."""
    shares = iter([line(n).encode() + b"\n" for n in range(1, 600)])
    hanging = client.import_vendor_file(shares, 0)
    assert next(hanging).lines == 500
    hanging.close()
    del hanging
    chain = client.make_chain(7, 1, 64)
    assert client.verify([chain]) == [""]
    end = time.monotonic() + 60
    while True:
        try:
            sealed = seal_device_keys(client, [(1, key_of(1))])
        except EncryptorError as error:
            assert "another import runs" in str(error)
            assert time.monotonic() < end
        else:
            assert [one.owner for one in sealed] == [1]
            return


def test_no_key_is_anywhere_in_clear(
    process: EncryptorProcess, client: EncryptorClient, engine: Engine, tmp_path: Path
) -> None:
    """Neither on the disk of the machine that imports, nor in the database, nor in a log."""
    home = tmp_path / "importer"
    home.mkdir()
    path = write(tmp_path / "keys.csv", *(line(n) for n in range(1, 101)))
    sent = encrypted(path, client.info().import_recipient).rename(home / "keys.age")
    path.unlink()
    command = [sys.executable, "-m", "portcullis.cli.main", "keys", "import-devices", str(sent)]
    subprocess.run(
        [*command, "--config", str(process.config)], check=True, cwd=home, capture_output=True
    )
    check_keys(engine, client, set(range(1, 101)))
    everything = b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())
    with engine.connect() as connection:
        for row in connection.execute(select(keys.c.sealed_key)):
            everything += row[0]
        connection.execute(text("SELECT 1"))
    for n in (1, 50, 100):
        assert key_of(n) not in everything
        assert key_of(n).hex().encode() not in everything


def test_the_comparison_answers_for_two_keys_of_one_device_only(client: EncryptorClient) -> None:
    """It cannot be used to try one box's key against another's, or a product's."""
    one, two = seal_device_keys(client, [(1, bytes(16)), (2, bytes(16))])
    chain = client.make_chain(1, 1, 64)
    moved = pb.SealedKey()
    moved.CopyFrom(two)
    moved.owner = 1
    answers = client.same_keys([(one, one), (one, two), (one, chain), (chain, chain), (one, moved)])
    assert answers[0] == ""
    assert answers[1:4] == ["not two keys of one device"] * 3
    assert "does not open" in answers[4]
