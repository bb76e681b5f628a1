"""A box is shut out: rights, return, keys; and a number that ran away is repaired."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, event, select, update

from portcullis.cli.main import cli
from portcullis.scheduler import blacklist as subject
from portcullis.scheduler.blacklist import blacklist
from portcullis.store.blacklist import RepairError, repair_number, set_blacklisted
from portcullis.store.database import database_now, engine_for, writing
from portcullis.store.orders import Accepted, NewRequest, Refused, apply_requests
from portcullis.store.rotation import read_chains
from portcullis.store.schema import device_work, devices, entitlements, key_events, keys, requests
from portcullis.store.to_seal import read_orders
from portcullis.store.work import claim
from tests.integration.scheduler_bench import Bench, ChainMaker

EPOCHS = 64


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    """Product 7 with its chain, and boxes 1 and 2 that hold it."""
    engine = engine_for(database_url)
    bench = Bench(engine)
    bench.product()
    bench.boxes(1, 2)
    yield bench
    engine.dispose()


def add(engine: Engine, device_id: int) -> Accepted | Refused:
    """What the SMS asks for when it adds a device."""
    with writing(engine) as connection:
        there = select(keys.c.owner).where(keys.c.purpose == "device", keys.c.owner == device_id)
        if connection.execute(there).one_or_none() is None:
            row = {"purpose": "device", "owner": device_id, "first_epoch": 0, "last_epoch": 65535}
            sealed = {"master_id": "m1", "sealed_key": b"x", "created_at": database_now(connection)}
            connection.execute(keys.insert().values(row | sealed))
    request = NewRequest("sms", f"t{device_id}", "adddevice", {}, b"h" * 32, device_id)
    (result,) = apply_requests(engine, [request])
    return result


def test_a_blacklisted_box_has_no_rights_no_way_back_and_worthless_keys(bench: Bench) -> None:
    """The removal is an order that the box is told of; the chain it knows is replaced."""
    engine = bench.engine
    assert blacklist(engine, ChainMaker(), 1, EPOCHS) == [7]
    with engine.connect() as connection:
        device = connection.execute(select(devices).where(devices.c.device_id == 1)).one()
        held = connection.execute(select(entitlements.c.device_id)).scalars().all()
        request = connection.execute(select(requests)).one()
        events = connection.execute(select(key_events.c.event)).scalars().all()
    assert (device.active, device.blacklisted_at is not None, held) == (0, True, [2])
    assert (request.kind, request.client_id, request.outcome) == (
        "removedevice",
        subject.CLIENT,
        "accepted",
    )
    assert "device_blacklisted" in events
    assert bench.work(1)["wanted"] == 2
    assert [chain.first_epoch for chain in read_chains(engine)] == [1, 3]
    refused = add(engine, 1)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.detail) == ("not_permitted", "device 1 is blacklisted")
    set_blacklisted(engine, 1, is_blacklisted=False)
    assert isinstance(add(engine, 1), Accepted)


def test_a_box_that_was_never_added_cannot_be_added_either(bench: Bench) -> None:
    """It holds nothing, so no chain is started."""
    assert blacklist(bench.engine, ChainMaker(), 99, EPOCHS) == []
    assert isinstance(add(bench.engine, 99), Refused)
    assert len(read_chains(bench.engine)) == 1


class Killed(BaseException):
    """The command was killed."""


@pytest.mark.parametrize("step", ["set_blacklisted", "apply_requests", "rotate_now"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_blacklisting_that_was_killed_is_done_by_running_it_again(
    when: str, step: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And again: one removal, one new chain."""
    real = getattr(subject, step)

    def dying(*arguments: Any, **named: Any) -> None:  # noqa: ANN401 (the real one's)
        if when == "after":
            real(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(subject, step, dying)
        with pytest.raises(Killed):
            blacklist(bench.engine, ChainMaker(), 1, EPOCHS)
    for _ in range(2):
        blacklist(bench.engine, ChainMaker(), 1, EPOCHS)
    assert [chain.first_epoch for chain in read_chains(bench.engine)] == [1, 3]
    with bench.engine.connect() as connection:
        assert len(connection.execute(select(requests)).all()) == 1


def test_rights_that_ended_are_never_read_together_with_a_chain_that_began_after(
    bench: Bench,
) -> None:
    """A box is blacklisted while an EMMG reads: its state has no key of the new chain."""
    engine = bench.engine
    other = engine_for(str(engine.url.render_as_string(hide_password=False)))
    ran = []

    def meanwhile(_c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:  # noqa: ANN401 (as SQLAlchemy calls it)
        if "retired_at IS NULL" in statement and not ran:  # between rights and chains
            ran.append(blacklist(other, ChainMaker(), 1, EPOCHS))

    event.listen(engine, "before_cursor_execute", meanwhile)
    orders = read_orders(engine, [1])
    event.remove(engine, "before_cursor_execute", meanwhile)
    other.dispose()
    assert ran == [[7]]
    assert [chain["first_epoch"] for chain in orders.chains[7]] == [1]


def test_a_number_that_ran_away_begins_again_under_the_next_epoch(bench: Bench) -> None:
    """What was being sealed with the old number is dropped; a number in order is refused."""
    engine = bench.engine
    with pytest.raises(RepairError, match="nothing to repair"):
        repair_number(engine, 1)
    with pytest.raises(RepairError, match="never added"):
        repair_number(engine, 99)
    with writing(engine) as connection:
        far = int(database_now(connection).timestamp()) + 10 * 365 * 86_400
        values = {"sequence": far, "claim_token": "t", "claim_wanted": 1, "failed_at": bench.now}
        connection.execute(update(device_work).where(device_work.c.device_id == 1).values(values))
    assert repair_number(engine, 1) == 1
    with pytest.raises(RepairError, match="nothing to repair"):
        repair_number(engine, 1)
    (claimed,) = claim(engine, "u", 10, timedelta(seconds=30))
    assert (claimed.device_id, claimed.epoch, claimed.cause) == (1, 1, "order")
    assert claimed.seals_state
    assert abs(claimed.sequence - bench.now.timestamp()) < 3600
    with engine.connect() as connection:
        noted = connection.execute(
            select(key_events.c.detail).where(key_events.c.event == "device_epoch_raised")
        ).scalar_one()
    assert json.loads(noted) == {"device_id": "1", "epoch": 1, "number_was": far}


def test_the_commands_answer_in_json(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair that is none is an error with its reason."""
    url = bench.engine.url.render_as_string(hide_password=False)
    monkeypatch.setenv("PORTCULLIS_DATABASE__URL", url)
    lifted = CliRunner().invoke(cli, ["devices", "blacklist", "1", "--lift", "--json"])
    assert json.loads(lifted.stdout) == {"device_id": 1, "blacklisted": False}
    wrong = CliRunner().invoke(cli, ["keys", "repair-number", "--device", "1", "--json"])
    assert "nothing to repair" in str(wrong.exception)
