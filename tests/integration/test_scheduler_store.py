"""Rotation, re-seal and purge on both databases; time is moved by changing the rows."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update

from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.store import purge, rotation
from portcullis.store.database import database_now, engine_for, writing
from portcullis.store.keys import (
    insert_chain,
    insert_device_keys,
    insert_next_chain,
    products_without_chain,
)
from portcullis.store.schema import (
    device_work,
    devices,
    emms,
    entitlements,
    keys,
    products,
    requests,
)

DAY = timedelta(days=1)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine of the test's own."""
    engine = engine_for(database_url)
    yield engine
    engine.dispose()


def chain(first_epoch: int = 1, last_epoch: int = 3) -> pb.SealedKey:
    """A sealed chain of product 101."""
    return pb.SealedKey(
        purpose=pb.SealedKey.PRODUCT,
        owner=101,
        first_epoch=first_epoch,
        last_epoch=last_epoch,
        master_id="m",
        blob=b"sealed",
    )


def now_of(engine: Engine) -> datetime:
    """The database's time."""
    with engine.connect() as connection:
        return database_now(connection)


def box(engine: Engine, device_id: int, *, active: bool = True, **work: object) -> None:
    """A clean box that holds product 101."""
    now = now_of(engine)
    with writing(engine) as connection:
        connection.execute(
            devices.insert().values(device_id=device_id, active=int(active), added_at=now)
        )
        connection.execute(
            entitlements.insert().values(device_id=device_id, product_id=101, starts_at=now)
        )
        values = {"wanted": 1, "state_wanted": 1, "sealed": 1, "state_sealed": 1} | work
        connection.execute(
            device_work.insert().values(
                device_id=device_id, cause="order", priority=0, state_sealed_at=now, **values
            )
        )


def work_of(engine: Engine, device_id: int) -> dict[str, object]:
    """A row of device_work."""
    with engine.connect() as connection:
        row = connection.execute(
            select(device_work).where(device_work.c.device_id == device_id)
        ).mappings()
        return dict(row.one())


def emm(engine: Engine, device_id: int, message_id: int = 0, **changes: object) -> None:
    """An aired EMM on the carousel."""
    now = now_of(engine)
    values: dict[str, object] = {
        "part": 1,
        "parts": 1,
        "kind": 1,
        "epoch": 0,
        "number": 1,
        "cause": "order",
        "covers": 1,
        "revision": 1,
        "section": b"x",
        "sealed_at": now,
        "first_aired_at": now,
    }
    with writing(engine) as connection:
        connection.execute(
            emms.insert().values(device_id=device_id, message_id=message_id, **values | changes)
        )


def test_a_product_has_no_chain_until_it_gets_one(engine: Engine) -> None:
    """Found once, and then no more."""
    with writing(engine) as connection:
        connection.execute(
            products.insert().values(product_id=101, name="n", created_at=database_now(connection))
        )
    assert products_without_chain(engine) == [101]
    insert_chain(engine, chain())
    assert products_without_chain(engine) == []


def test_a_rotation_is_prepared_switched_and_rekeys_the_entitled(engine: Engine) -> None:
    """Boxes are asked for ahead; the switch changes the live epoch and asks nobody."""
    insert_chain(engine, chain())
    box(engine, 1)
    assert rotation.prepare_epochs(engine, 30 * DAY, DAY) == []
    with writing(engine) as connection:
        connection.execute(update(keys).values(live_since=now_of(engine) - 29 * DAY))
    assert rotation.prepare_epochs(engine, 30 * DAY, DAY) == [101]
    assert rotation.prepare_epochs(engine, 30 * DAY, DAY) == []
    work = work_of(engine, 1)
    assert (work["wanted"], work["state_wanted"], work["cause"], work["priority"]) == (
        2,
        2,
        "rekey",
        1,
    )
    assert work["due_at"] is not None
    assert rotation.switch_epochs(engine) == []
    switch_at = now_of(engine) - timedelta(seconds=1)
    with writing(engine) as connection:
        connection.execute(update(keys).values(switch_at=switch_at))
    assert rotation.switch_epochs(engine) == [101]
    with engine.connect() as connection:
        row = connection.execute(select(keys)).one()
    assert (row.live_epoch, row.seal_epoch, row.live_since, row.switch_at) == (
        2,
        2,
        switch_at,
        None,
    )


def test_a_chain_at_its_end_is_followed_by_a_new_one_and_retires(engine: Engine) -> None:
    """Both are given out for the overlap; the switch retires the old."""
    insert_chain(engine, chain(1, 1))
    with writing(engine) as connection:
        connection.execute(update(keys).values(live_since=now_of(engine) - 30 * DAY))
    assert rotation.prepare_epochs(engine, 30 * DAY, DAY) == []
    assert rotation.ending_chains(engine, 30 * DAY, DAY) == [(101, 1)]
    insert_next_chain(engine, chain(2, 3), timedelta(seconds=-1))
    assert rotation.ending_chains(engine, 30 * DAY, DAY) == []
    assert rotation.chains_of(engine, 101) == [3, 1]
    assert rotation.switch_epochs(engine) == [101]
    assert rotation.chains_of(engine, 101) == [3]


def test_a_rekey_takes_no_precedence_from_an_order_nor_a_claim(engine: Engine) -> None:
    """A dirty device stays an order's; a claimed one keeps its deadline."""
    due = now_of(engine) - timedelta(minutes=1)
    box(engine, 1, dirty_at=due, due_at=due)
    box(engine, 2, dirty_at=due, due_at=due + DAY, claim_token="t", claim_wanted=1)
    rotation.ask_for_rekey(engine, 101)
    first, second = work_of(engine, 1), work_of(engine, 2)
    assert (first["cause"], first["priority"], first["due_at"]) == ("order", 0, due)
    assert (second["due_at"], second["state_wanted"]) == (due + DAY, 2)


def test_the_reseal_asks_for_the_stale_and_leaves_the_fresh(engine: Engine) -> None:
    """Only active, clean boxes that were last sealed too long ago."""
    box(engine, 1)
    box(engine, 2)
    box(engine, 3, active=False)
    with writing(engine) as connection:
        connection.execute(
            update(device_work)
            .where(device_work.c.device_id.in_([1, 3]))
            .values(state_sealed_at=now_of(engine) - 2 * DAY)
        )
    assert rotation.reseal(engine, DAY) == 1
    assert work_of(engine, 1)["cause"] == "reseal"
    assert rotation.reseal(engine, DAY) == 0


def test_what_is_over_leaves_the_carousel_and_is_deleted_after_an_hour(engine: Engine) -> None:
    """First a tombstone, so that every cycler hears of it."""
    emm(engine, 1, 5, ends_at=now_of(engine) - timedelta(seconds=1))
    emm(engine, 1, 6, ends_at=now_of(engine) + DAY)
    emm(engine, 1)
    assert purge.end_emms(engine) == 1
    assert purge.delete_over(engine, DAY)["emms"] == 0
    with writing(engine) as connection:
        connection.execute(update(emms).values(sealed_at=now_of(engine) - DAY))
    assert purge.delete_over(engine, DAY)["emms"] == 1


def test_a_removed_box_is_told_so_while_a_key_it_holds_opens_anything(engine: Engine) -> None:
    """It leaves the carousel when its product's live epoch has passed what it holds."""
    insert_chain(engine, chain())
    box(engine, 1, active=False, held='{"101": 1}')
    emm(engine, 1)
    assert purge.end_removed_devices(engine) == 0
    with writing(engine) as connection:
        connection.execute(update(keys).values(live_epoch=2))
    assert purge.end_removed_devices(engine) == 1


def test_requests_are_kept_for_their_retention(engine: Engine) -> None:
    """Those beyond it go, and no others."""
    with writing(engine) as connection:
        for number, age in enumerate((DAY, 800 * DAY)):
            connection.execute(
                requests.insert().values(
                    request_id=f"{number:032x}",
                    client_id="c",
                    kind="adddevice",
                    body="{}",
                    outcome="accepted",
                    received_at=now_of(engine) - age,
                )
            )
    assert purge.delete_over(engine, 731 * DAY)["requests"] == 1
    assert purge.delete_over(engine, 731 * DAY)["requests"] == 0


def test_a_device_key_is_imported_once(engine: Engine) -> None:
    """A key that is there stays; the import can be run again."""
    key = pb.SealedKey(owner=7, last_epoch=65535, master_id="m", blob=b"first")
    again = pb.SealedKey(owner=7, last_epoch=65535, master_id="m", blob=b"second")
    assert insert_device_keys(engine, [key]) == 1
    assert insert_device_keys(engine, [again]) == 0
    with engine.connect() as connection:
        assert connection.execute(select(keys.c.sealed_key)).scalar_one() == b"first"
