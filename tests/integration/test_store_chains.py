"""Numbers of evidence: gapless by writer, in the transaction of what they number."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, select

from portcullis.store.chains import begin_series, record_key_event, take_numbers
from portcullis.store.database import engine_for, writing
from portcullis.store.orders import NewRequest, apply_requests
from portcullis.store.schema import chains, key_events, requests


@pytest.fixture
def engine(database_url: str) -> Any:  # noqa: ANN401 (a generator)
    """A fresh database."""
    made = engine_for(database_url)
    yield made
    made.dispose()


def put(engine: Engine, writer: str, *products: int) -> None:
    """Commit a group of requests."""
    group = [
        NewRequest("sms", None, "putproduct", {"name": "x"}, product_id=product_id)
        for product_id in products
    ]
    apply_requests(engine, group, writer)


def numbers(engine: Engine, writer: str) -> list[int]:
    """The numbers of a writer's committed requests."""
    statement = (
        select(requests.c.chain_seq)
        .join(chains, chains.c.chain_id == requests.c.chain_id)
        .where(chains.c.writer == writer)
        .order_by(requests.c.chain_seq)
    )
    with engine.connect() as connection:
        return list(connection.execute(statement).scalars())


class Change(Exception):  # noqa: N818 (rolls a transaction back)
    """Of mind."""


def take_and_change_mind(engine: Engine) -> None:
    """Take numbers in a transaction that is rolled back."""
    with writing(engine) as connection:
        assert take_numbers(connection, "a", 5)[1] == 4
        raise Change


def test_each_writer_counts_what_it_commits_and_nothing_else(engine: Engine) -> None:
    """A group rolled back leaves no gap; another writer has its own numbers."""
    put(engine, "a", 1, 2, 3)
    put(engine, "b", 4)
    with pytest.raises(Change):
        take_and_change_mind(engine)
    put(engine, "a", 5)
    assert (numbers(engine, "a"), numbers(engine, "b")) == ([1, 2, 3, 4], [1])


def test_two_that_share_a_name_share_its_numbers(engine: Engine) -> None:
    """The chain's row is locked: a second process of the same address does no harm."""
    threads = [
        threading.Thread(target=lambda base=base: [put(engine, "a", base + n) for n in range(10)])
        for base in (100, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(engine, "a") == list(range(1, 21))


def test_no_writer_waits_for_another(mariadb_url: str) -> None:
    """Though each has its chain's row locked."""
    engine = engine_for(mariadb_url)
    put(engine, "a", 1)
    put(engine, "b", 2)
    with writing(engine) as one, writing(engine) as other:
        other.exec_driver_sql("SET innodb_lock_wait_timeout = 1")
        assert take_numbers(one, "a", 1)[1] == take_numbers(other, "b", 1)[1] == 2
    engine.dispose()


def test_a_restored_database_begins_new_series(engine: Engine) -> None:
    """Of every writer, also twice in a second."""
    put(engine, "a", 1, 2)
    before = int(datetime.now(UTC).timestamp())
    for _ in range(2):
        with writing(engine) as connection:
            begin_series(connection)
    put(engine, "a", 3)
    with engine.connect() as connection:
        rows = connection.execute(
            select(chains).where(chains.c.writer == "a").order_by(chains.c.series)
        ).all()
    assert [row.seq for row in rows] == [2, 0, 1]
    assert rows[0].series == 0
    assert before - 60 < rows[1].series < rows[2].series


def test_key_events_are_one_chain_with_who_and_when(engine: Engine) -> None:
    """Whoever causes them."""
    with writing(engine) as connection:
        record_key_event(connection, "chain_made", product_id=5, live_at=datetime.now(UTC))
        record_key_event(connection, "chain_retired", product_id=5, nothing=None)
    with engine.connect() as connection:
        rows = connection.execute(select(key_events).order_by(key_events.c.chain_seq)).all()
    assert [(row.chain_seq, row.event) for row in rows] == [(1, "chain_made"), (2, "chain_retired")]
    assert rows[1].detail == '{"product_id": 5}'
    assert "@" in rows[0].actor
