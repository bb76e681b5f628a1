"""Rows in bulk are the rows that went one by one, on both databases."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select
from sqlalchemy.exc import IntegrityError

from portcullis.store.bulk import Script, among, listing, literal, put, row_of
from portcullis.store.database import engine_for, writing
from portcullis.store.migrate import migrate
from portcullis.store.readings import Reading, place, read
from portcullis.store.schema import device_work, emms, products
from tests.conftest import MariaDb

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 5, 1, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.fixture(scope="module")
def engines(mariadb: MariaDb, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Engine]]:
    """One of each kind, migrated once."""
    folder = tmp_path_factory.mktemp("bulk")
    urls = [mariadb.new_database(), f"sqlite:///{folder}/a.db"]
    made = [engine_for(url) for url in urls]
    for engine in made:
        migrate(engine)
    yield made
    for engine in made:
        engine.dispose()


rows = st.lists(
    st.tuples(
        st.integers(1, 2**40 - 1),
        st.binary(min_size=1, max_size=256),
        st.integers(10**9, 4 * 10**15).map(lambda us: EPOCH + timedelta(microseconds=us)),
        st.one_of(st.none(), st.just(NOW)),
        st.sampled_from(["order", "rekey", "reseal"]),
    ),
    max_size=20,
    unique_by=lambda row: row[0],
)
COLUMNS = (
    *("device_id", "message_id", "part", "parts", "kind", "epoch", "number", "cause", "covers"),
    *("revision", "tombstone", "section", "sealed_at", "ends_at"),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows)
def test_what_is_put_is_what_is_got(engines: list[Engine], boxes: list[tuple[object, ...]]) -> None:
    """Numbers, bytes, times, nothing and words, written as text and read as one value."""
    literals = [
        f"({d},0,1,1,1,0,7,{literal(cause)},3,{2**62},0,{literal(data)},{literal(at)},{literal(end)})"
        for d, data, at, end, cause in boxes  # type: ignore[arg-type]
    ]
    for engine in engines:
        with writing(engine) as connection:
            connection.execute(delete(emms))
            put(connection, emms, COLUMNS, literals)
            e = emms.c
            wanted = [row[0] for row in boxes[::2]]
            columns = (e.device_id, e.section, e.sealed_at, e.ends_at, e.cause, e.revision)
            [found] = read(
                connection, Reading(columns, place("those")).of(those=among("device_id", wanted))
            )
            plain = connection.execute(select(*columns).where(e.device_id.in_(wanted))).all()
        assert sorted(zip(*found, strict=True)) == sorted((*row, 2**62) for row in boxes[::2])
        assert sorted(zip(*found, strict=True)) == sorted(map(tuple, plain))


@pytest.mark.parametrize(
    "wanted",
    [[], [5], [4, 5, 6], [6, 4, 4], [2, 3, 9], [1, 40], [40, 39, 1, 2, 3]],
    ids=["none", "one", "in a row", "with gaps", "apart", "far apart", "in two places"],
)
def test_values_close_together_are_found_as_those_far_apart_are(
    engines: list[Engine], wanted: list[int]
) -> None:
    """And an UPDATE leaves what lies between them alone."""
    e = emms.c
    for engine in engines:
        with writing(engine) as connection:
            connection.execute(delete(emms))
            values = f"0,1,1,1,0,7,'order',3,1,0,x'',{literal(NOW)},NULL"
            put(connection, emms, COLUMNS, [f"({box},{values})" for box in range(1, 41)])
            those = among("device_id", wanted)
            [[found]] = read(connection, Reading((e.device_id,), place("those")).of(those=those))
            locked = Reading((e.device_id,), place("those"), lock=True)
            no_more = among("device_id", wanted, locks=True)
            assert read(connection, locked.of(those=no_more)) == [[found]]
            script = Script(connection)
            script.add(f"UPDATE emms SET covers = 4 WHERE {those}")
            script.run()
            [[changed]] = read(connection, Reading((e.device_id,), e.covers == 4).of())
        assert sorted(found) == sorted(changed) == sorted(set(wanted))


def test_a_key_that_is_there_takes_the_columns_named_and_no_other(engines: list[Engine]) -> None:
    """And without any it is an error."""
    first, second = (f"(9,0,1,1,1,0,{n},'order',3,1,0,x'0{n}',{literal(NOW)},NULL)" for n in (1, 2))
    for engine in engines:
        with writing(engine) as connection:
            connection.execute(delete(emms))
            put(connection, emms, COLUMNS, [first])
            put(connection, emms, COLUMNS, [second], ["section"])
            row = connection.execute(select(emms.c.number, emms.c.section)).one()
        assert tuple(row) == (1, b"\x02")
        with pytest.raises(IntegrityError), writing(engine) as connection:
            put(connection, emms, COLUMNS, [first])


_UNSAFE = ["it's", "back\\slash", "% 5 %s", "ünï €", "new\nline", "nul\0", "😀"]


@pytest.mark.parametrize("text", [*_UNSAFE, "semi;colon", 'a|b "c" `d` -- e', ""])
def test_a_string_that_might_be_read_as_sql_is_itself_again(
    engines: list[Engine], text: str
) -> None:
    """Whatever stands in it; what could end a literal stands in no statement as it is."""
    assert text not in _UNSAFE or text not in literal(text)
    columns = ("product_id", "name", "created_at")
    for engine in engines:
        with writing(engine) as connection:
            connection.execute(delete(products))
            put(connection, products, columns, [row_of(1, text, NOW)])
            assert connection.execute(select(products.c.name)).scalar_one() == text


def test_more_rows_than_one_statement_takes_go_in_several(engines: list[Engine]) -> None:
    """Each is there once."""
    name, count = "ü" * 200, 4000  # 3 MB in hex
    for engine in engines:
        with writing(engine) as connection:
            connection.execute(delete(products))
            columns = ("product_id", "name", "created_at")
            rows = [row_of(number, name, NOW) for number in range(1, count + 1)]
            put(connection, products, columns, rows)
            ids = connection.execute(select(products.c.product_id)).scalars().all()
        assert sorted(ids) == list(range(1, count + 1))


def test_no_value_and_no_row_are_nothing(engines: list[Engine]) -> None:
    """An empty list of ids is no condition that all rows meet."""
    work = device_work.c
    nobody = Reading((work.device_id, work.held), place("those"))
    for engine in engines:
        with writing(engine) as connection:
            put(connection, emms, COLUMNS, [])
            for those in (among("device_id", []), f"device_id IN {listing([])}"):
                assert read(connection, nobody.of(those=those)) == [[[], []]]
