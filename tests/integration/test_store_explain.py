"""At a million rows every statement of a hot path uses an index and reads what it is about."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy import Engine, event

from portcullis.emm import Kind
from portcullis.store.airable import FirstAiring
from portcullis.store.database import engine_for
from portcullis.store.failures import failed_devices
from portcullis.store.feed import FeedWatch, changes, first_aired_times, write_first_airings
from portcullis.store.figures import queue_figures
from portcullis.store.load import end_of_page, page_rows, page_states
from portcullis.store.migrate import migrate
from portcullis.store.orders import NewRequest, apply_requests
from portcullis.store.purge import (
    delete_old,
    delete_over,
    delete_tombstones,
    tombstone_ended,
    tombstone_removed,
)
from portcullis.store.queue import is_any_due
from portcullis.store.reads import device_record, request_by_id, request_by_transaction
from portcullis.store.rekey import begin_rotation, check_chunk, mark_chunk, read_rotations
from portcullis.store.rotation import Chain, mark_chunk_for_reseal, read_chains
from portcullis.store.to_seal import read_orders
from portcullis.store.work import Finished, SealedEmm, claim, claimed, finish, hold_on
from tests.conftest import running_mariadb

pytestmark = [
    pytest.mark.timeout(400),  # on a loaded machine the rows take a minute
    pytest.mark.xdist_group("explain"),  # and are filled in once
]

_MOST_READ = 30_000
"""Rows that one statement may read: a page of the largest batch a few times over."""
_BATCH = 500
_HOLD = timedelta(seconds=30)
_AGO = datetime.now(UTC) - timedelta(days=2)

_FILL = Path(__file__).with_name("million.sql").read_text(encoding="utf-8").split("\n--\n")


@dataclass
class Statement:
    """One that was run: how many rows it read, and what the server planned."""

    sql: str
    plan: list[dict[str, Any]]
    read: int = 0

    def faults(self) -> list[str]:
        """What is wrong with it."""
        faults = [
            f"{row['type']} {row['Extra']} over {row['rows']} rows of {row['table']}"
            for row in self.plan
            if int(row["rows"] or 0) > _MOST_READ
            and (row["type"] == "ALL" or "filesort" in (row["Extra"] or ""))
        ]
        if self.read > _MOST_READ:
            faults.append(f"{self.read} rows read, plan {self.plan}")
        return [f"{fault}: {self.sql[:300]}" for fault in faults]


class Witness:
    """Sees every statement of an engine."""

    def __init__(self, engine: Engine) -> None:
        self.seen: list[Statement] = []
        self._engine = engine
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)

    def look_away(self) -> None:
        """See nothing from now on."""
        event.remove(self._engine, "before_cursor_execute", self._before)
        event.remove(self._engine, "after_cursor_execute", self._after)

    def _before(
        self,
        _connection: object,
        cursor: Any,  # noqa: ANN401 (the driver's)
        sql: str,
        parameters: Any,  # noqa: ANN401
        _context: object,
        executemany: bool,
    ) -> None:
        plan: list[dict[str, Any]] = []
        for one in sql.split(";\n"):  # a script
            if one.lstrip("(").split()[0] in {"SELECT", "UPDATE", "DELETE"}:
                with cursor.connection.cursor(pymysql.cursors.DictCursor) as beside:
                    beside.execute(f"EXPLAIN {one}", parameters[0] if executemany else parameters)
                    plan += beside.fetchall()
        self.seen.append(Statement(sql, plan, -_read(cursor)))

    def _after(self, _connection: object, cursor: Any, *_: object) -> None:  # noqa: ANN401
        self.seen[-1].read += _read(cursor)


def _read(cursor: Any) -> int:  # noqa: ANN401
    """Rows that this connection has read so far."""
    with cursor.connection.cursor() as beside:
        beside.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(value) for name, value in beside.fetchall() if "deleted" not in name)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """A database of a million boxes, on a server of its own."""
    with running_mariadb(
        "--innodb-buffer-pool-size=1G",
        "--innodb-log-file-size=512M",
        "--innodb-flush-log-at-trx-commit=0",
        "--skip-innodb-doublewrite",
    ) as server:
        url = server.new_database()
        engine = engine_for(url)
        migrate(engine)
        name = url.rpartition("/")[2].partition("?")[0]

        def fill(statements: str) -> None:
            where = {"host": "127.0.0.1", "port": server.port, "user": "root", "database": name}
            with pymysql.connect(**where, autocommit=True) as link, link.cursor() as cursor:
                cursor.execute("SET @at = %s, unique_checks = 0", (_AGO.replace(tzinfo=None),))
                for statement in statements.strip().split(";\n"):
                    cursor.execute(statement)

        with ThreadPoolExecutor(len(_FILL)) as threads:
            list(threads.map(fill, _FILL))
        tables = "devices, device_work, requests, emms, `keys`, entitlements, transactions"
        with engine.connect() as connection:
            connection.exec_driver_sql(f"ANALYZE TABLE {tables}, airings, messages")
        # Once in a key period it counts whom a re-key concerns: the whole index of a product.
        begin_rotation(engine, _next_epoch(engine, datetime.now(UTC)), datetime.now(UTC))
        yield engine
        engine.dispose()


def _orders(engine: Engine) -> None:
    """Grants, revocations, messages, removals."""
    for kind, product in (
        ("addentitlement", 1),
        ("removeentitlement", 1),
        ("generateosm", None),
        ("removedevice", None),
        ("adddevice", None),
    ):
        body = {"text": "t", "duration_s": 0} if kind == "generateosm" else {}
        apply_requests(
            engine,
            [
                NewRequest("sms", f"{kind}-{box}", kind, body, b"h" * 32, box, product)
                for box in range(1001, 1001 + _BATCH)
            ],
        )


def _sealing(engine: Engine) -> None:
    assert is_any_due(engine, _HOLD)
    # The second goes on from the place where the first has ended.
    claims = [one for _ in range(2) for one in claim(engine, "t", _BATCH // 2, _HOLD)]
    assert len(claims) == _BATCH
    assert claimed(engine, "t") != []
    hold_on(engine, ["t"], _HOLD)
    read_orders(engine, [one.device_id for one in claims])
    done = [
        Finished(
            one,
            [SealedEmm(one.device_id, 0, Kind.STATE, 0, 2, "order", one.wanted, [b"s" * 100])],
            {1: 1},
        )
        for one in claims
    ]
    assert len(finish(engine, "t", done)) == _BATCH


def _airing(engine: Engine) -> None:
    revision = FeedWatch(engine).position().revision
    rows = changes(engine, revision - 1, revision)
    assert rows
    write_first_airings(
        engine,
        [
            FirstAiring(
                one.device_id, 0, 1, one.revision, one.covers, completes_set=True, aired_at=1.7e9
            )
            for one in rows
        ],
    )
    assert first_aired_times(engine, [one.key for one in rows])


def _loading(engine: Engine) -> None:
    with engine.connect() as connection:
        up_to = end_of_page(connection, 500_000, 5000)
        assert up_to == 505_000
        page_states(connection, 500_000, up_to, datetime.now(UTC).timestamp())
        page_rows(connection, 500_000, up_to, datetime.now(UTC).timestamp())


def _asking(engine: Engine) -> None:
    assert request_by_id(engine, "sms", f"{77_777:032x}") is not None
    assert request_by_transaction(engine, "sms", "88888") is not None
    assert device_record(engine, 99_999) is not None
    failed_devices(engine)
    queue_figures(engine)


def _next_epoch(engine: Engine, now: datetime) -> Chain:
    return replace(read_chains(engine)[0], seal_epoch=2, switch_at=now + timedelta(days=1))


def _rekeying(engine: Engine) -> None:
    now = datetime.now(UTC)
    chain = _next_epoch(engine, now)
    (progress,) = read_rotations(engine)
    assert mark_chunk(engine, progress, chain, now, _BATCH) == _BATCH
    check_chunk(engine, progress, chain, now, _BATCH)
    all_are_old = now + timedelta(days=2)
    assert mark_chunk_for_reseal(engine, all_are_old, timedelta(days=1), _BATCH) == _BATCH


def _purging(engine: Engine) -> None:
    now = datetime.now(UTC)
    tombstone_ended(engine, now)
    tombstone_removed(engine, now)
    delete_tombstones(engine, FeedWatch(engine).position().revision)
    delete_over(engine, now)
    delete_old(engine, now - timedelta(days=731), None)


@pytest.mark.parametrize(
    "path", [_orders, _sealing, _airing, _loading, _asking, _rekeying, _purging]
)
def test_no_statement_reads_a_whole_table(engine: Engine, path: Callable[[Engine], None]) -> None:
    """By the server's plan, and by the rows it says it has read."""
    witness = Witness(engine)
    try:
        path(engine)
    finally:
        witness.look_away()
    assert witness.seen
    assert [fault for one in witness.seen for fault in one.faults()] == []
