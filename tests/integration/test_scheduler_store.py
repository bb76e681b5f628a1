"""Rotation, re-seal and purge on both databases; time is moved by changing the rows."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update

from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.store import purge, rekey, rotation
from portcullis.store.database import database_now, engine_for, writing
from portcullis.store.keys import insert_chain, products_without_chain
from portcullis.store.schema import (
    device_work,
    devices,
    emms,
    entitlements,
    keys,
    products,
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


def test_a_rotation_is_prepared_marked_in_chunks_and_switched(engine: Engine) -> None:
    """Boxes are asked for ahead, a chunk at a time; the switch makes the next epoch live."""
    insert_chain(engine, chain())
    for device_id in (1, 2, 3):
        box(engine, device_id)
    (one,) = rotation.read_chains(engine)
    switch_at = now_of(engine) - timedelta(seconds=1)
    rotation.prepare_next_epoch(engine, one, switch_at)
    (one,) = rotation.read_chains(engine)
    now = now_of(engine)
    rekey.begin_rotation(engine, one, now)
    rekey.begin_rotation(engine, one, now)
    (progress,) = rekey.read_rotations(engine)
    assert progress.boxes == 3
    marked = [rekey.mark_chunk(engine, progress, one, now, 2) for _ in range(3)]
    assert marked == [2, 1, 0]
    work = work_of(engine, 3)
    assert (work["wanted"], work["state_wanted"]) == (2, 2)
    assert (work["cause"], work["priority"], work["due_at"]) == ("rekey", 1, now)
    assert rotation.go_live(engine, one, now)
    assert not rotation.go_live(engine, one, now)
    (one,) = rotation.read_chains(engine)
    assert (one.live_epoch, one.seal_epoch, one.switch_at) == (2, 2, None)


def test_a_rekey_takes_no_precedence_from_an_order_nor_a_claim(engine: Engine) -> None:
    """A dirty device stays an order's; a claimed one keeps its deadline."""
    due = now_of(engine) - timedelta(minutes=1)
    box(engine, 1, dirty_at=due, due_at=due)
    box(engine, 2, dirty_at=due, due_at=due + DAY, claim_token="t", claim_wanted=1)
    with writing(engine) as connection:
        rotation.mark(connection, [1, 2], now_of(engine), "rekey", 1)
    first, second = work_of(engine, 1), work_of(engine, 2)
    assert (first["cause"], first["priority"], first["due_at"]) == ("order", 0, due)
    assert (second["due_at"], second["state_wanted"]) == (due + DAY, 2)


def test_the_reseal_asks_for_the_stale_and_leaves_the_fresh(engine: Engine) -> None:
    """Only clean boxes on the carousel that were last sealed too long ago."""
    for device_id in (1, 2):
        box(engine, device_id)
        emm(engine, device_id)
    stale = now_of(engine) - 2 * DAY
    with writing(engine) as connection:
        connection.execute(
            update(device_work).where(device_work.c.device_id == 1).values(state_sealed_at=stale)
        )
    assert rotation.mark_chunk_for_reseal(engine, now_of(engine), DAY, 10) == 1
    assert work_of(engine, 1)["cause"] == "reseal"
    assert rotation.mark_chunk_for_reseal(engine, now_of(engine), DAY, 10) == 0


def test_what_is_over_leaves_the_carousel_as_a_tombstone_first(engine: Engine) -> None:
    """So that every cycler hears of it; what is not over stays."""
    now = now_of(engine)
    emm(engine, 1, 5, ends_at=now - timedelta(seconds=1))
    emm(engine, 1, 6, ends_at=now + DAY)
    emm(engine, 1)
    assert purge.tombstone_ended(engine, now) == 1
    assert purge.delete_tombstones(engine, purge.feed_revision(engine) - 1) == 0
    assert purge.delete_tombstones(engine, purge.feed_revision(engine)) == 1


def test_a_removed_box_is_told_so_while_a_key_it_holds_opens_anything(engine: Engine) -> None:
    """It leaves the carousel when its product's live epoch has passed what it holds."""
    insert_chain(engine, chain())
    box(engine, 1, active=False, held='{"101": 1}')
    emm(engine, 1, first_aired_at=now_of(engine) - DAY)
    assert purge.tombstone_removed(engine, now_of(engine)) == 0
    with writing(engine) as connection:
        connection.execute(update(keys).values(live_epoch=2))
    assert purge.tombstone_removed(engine, now_of(engine)) == 1


@pytest.mark.parametrize("aired", [None, timedelta()], ids=["not yet", "just now"])
def test_a_removed_box_that_held_nothing_is_told_so(
    engine: Engine, aired: timedelta | None
) -> None:
    """Its state leaves the carousel neither before its first airing nor soon after."""
    now = now_of(engine)
    box(engine, 1, active=False)
    emm(engine, 1, first_aired_at=None if aired is None else now - aired)
    assert purge.tombstone_removed(engine, now) == 0
    if aired is not None:
        later = now + purge.TOLD_FOR + timedelta(seconds=1)
        assert purge.tombstone_removed(engine, later) == 1
