"""Readings and scripts: what goes in one round trip means what it means one by one."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import Engine, delete, event, func, select
from sqlalchemy.exc import IntegrityError

from portcullis.store.bulk import Script, listing, literal, row_of
from portcullis.store.database import engine_for, writing
from portcullis.store.migrate import migrate
from portcullis.store.readings import NOTHING, Reading, is_in, place, read
from portcullis.store.schema import device_work, devices, products, transactions
from tests.conftest import MariaDb

NOW = datetime(2026, 5, 1, 12, 30, 15, 123456, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
NUMBER = products.c.product_id
NAMES = Reading((NUMBER, products.c.name), is_in(NUMBER, "ids"))
PRODUCT = ("product_id", "name", "created_at")


@pytest.fixture(scope="module")
def engines(mariadb: MariaDb, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Engine]]:
    """One of each kind, migrated once."""
    folder = tmp_path_factory.mktemp("readings")
    made = [engine_for(url) for url in (mariadb.new_database(), f"sqlite:///{folder}/a.db")]
    for engine in made:
        migrate(engine)
    yield made
    for engine in made:
        engine.dispose()


@pytest.fixture(autouse=True)
def _empty(engines: list[Engine]) -> None:
    for engine in engines:
        with writing(engine) as connection:
            for table in (products, transactions, devices):
                connection.execute(delete(table))


def _fill(script: Script) -> None:
    script.put(products, PRODUCT, [row_of(1, "p1", NOW), row_of(2, "p2", NOW)])
    orders = [
        row_of("a|b", "t|1", "r" * 32, b"\0" * 32, None, NOW),
        row_of("a|b", "t|2", "s" * 32, b"\xff" * 32, 7, LATER),
    ]
    script.put(transactions, transactions.columns.keys(), orders)
    script.put(devices, ("device_id", "active", "added_at"), [row_of(5, 1, NOW)])


def test_each_reading_finds_its_own_rows(engines: list[Engine]) -> None:
    """Words, bytes, times, nothing, by column; each run with values of its own in the places."""
    order = transactions.c
    kept = Reading(
        (order.request_id, order.body_hash, order.accepted_at, order.message_id), place("which")
    )
    work = Reading(
        (devices.c.device_id, func.coalesce(device_work.c.wanted, -1)),
        source=devices.outerjoin(device_work, device_work.c.device_id == devices.c.device_id),
    )
    second = f"client_id = {literal('a|b')} AND transaction_id = {literal('t|2')}"
    for engine in engines:
        with writing(engine) as connection:
            script = Script(connection)
            _fill(script)
            script.run()
            assert read(
                connection, NAMES.of(ids=listing([2, 3])), kept.of(which=second), work.of()
            ) == [
                [[2], ["p2"]],
                [["s" * 32], [b"\xff" * 32], [LATER], [7]],
                [[5], [-1]],
            ]
            names, (*_, messages) = read(
                connection, NAMES.of(ids=listing([1, 2])), kept.of(which="1 = 1")
            )
            assert sorted(zip(*names, strict=True)) == [(1, "p1"), (2, "p2")]
            assert sorted(messages, key=str) == [7, None]


def _note(run: list[str], _connection: object, _cursor: object, sql: str, *_: object) -> None:
    run.append(sql)


def test_what_nothing_is_asked_of_is_not_read(engines: list[Engine]) -> None:
    """A user without the right to read it can do what does not need it."""
    assert listing([]) == NOTHING
    for engine in engines:
        run: list[str] = []
        with writing(engine) as connection:
            event.listen(connection, "before_cursor_execute", partial(_note, run))
            nothing, every = read(
                connection, NAMES.of(ids=listing([])), Reading((devices.c.device_id,)).of()
            )
            assert read(connection, NAMES.of(ids=listing([]))) == [nothing]
        assert (nothing, every) == ([[], []], [[]])
        assert len(run) == 1
        assert "products" not in run[0]


def test_rows_read_with_a_lock_stay_as_they_are_until_the_end(engines: list[Engine]) -> None:
    """Another writer finds them taken, beside other readings too, and no others."""
    locked = Reading((NUMBER,), is_in(NUMBER, "ids"), lock=True)
    engine = engines[0]
    with writing(engine) as connection:
        script = Script(connection)
        _fill(script)
        script.run()
    free = select(NUMBER).with_for_update(skip_locked=True)
    with writing(engine) as connection:
        found = read(connection, NAMES.of(ids="(2)"), locked.of(ids="(1)"))
        assert found == [[[2], ["p2"]], [[1]]]
        with writing(engine) as other:
            assert other.execute(free).scalars().all() == [2]


def test_a_script_ends_with_the_statement_that_fails(engines: list[Engine]) -> None:
    """The error is that statement's; what stands behind it is not run."""
    for engine in engines:
        with writing(engine) as connection:
            script = Script(connection)
            _fill(script)
            script.run()
            script.add("UPDATE products SET name = 'before' WHERE product_id = 1")
            script.put(products, PRODUCT, [row_of(2, "there already", NOW)])
            script.add("UPDATE products SET name = 'behind' WHERE product_id = 1")
            with pytest.raises(IntegrityError):
                script.run()
            assert connection.execute(select(products.c.name)).scalars().all() == ["before", "p2"]
            script.run()  # nothing is left in it
