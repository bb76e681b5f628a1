"""Chains of evidence: each writer numbers what it commits without a gap, in the same transaction.

The auditor follows the numbers and writes the hash-chained log (docs/evidence.md). A number that
was committed is never used again, one that was rolled back is; so a missing one is a row that
somebody took away.
"""

import json
import os
import pwd
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Engine, func, select

from portcullis.store.bulk import literal
from portcullis.store.database import database_now, writing
from portcullis.store.readings import Reading, place, read
from portcullis.store.schema import chains, key_events

KEY_WRITER = "keys"
"""The one chain of all key events, whoever causes them."""


CHAINS = Reading(
    (chains.c.chain_id, chains.c.series, chains.c.seq),
    chains.c.writer == place("writer"),
    lock=True,
)
"""A writer's chains, one a series, theirs until the transaction ends."""


class Chain(NamedTuple):
    """The newest of a writer. seq: the last number taken."""

    chain_id: int
    seq: int

    def taking(self, count: int) -> str:
        """The statement that takes the next numbers."""
        return f"UPDATE chains SET seq = {self.seq + count} WHERE chain_id = {self.chain_id}"  # noqa: S608 (numbers)  # nosec B608


def newest(connection: Connection, writer: str, found: Sequence[Sequence[int]]) -> Chain:
    """The chain that goes on, of those that `CHAINS` has found; begun where there is none.

    Raises IntegrityError where two begin the same chain at once.
    """
    if by_series := sorted(zip(found[1], found[0], found[2], strict=True)):
        _, chain_id, seq = by_series[-1]
        return Chain(chain_id, seq)
    return Chain(_begin(connection, writer, 0, database_now(connection)), 0)


def take_numbers(connection: Connection, writer: str, count: int) -> tuple[int, int]:
    """Take the next `count` numbers of a writer's chain: chain_id, and the first of them.

    The chain's row stays locked until the transaction ends. Raises IntegrityError where two
    begin the same chain at once.
    """
    [found] = read(connection, CHAINS.of(writer=literal(writer)))
    chain = newest(connection, writer, found)
    connection.exec_driver_sql(chain.taking(count))
    return chain.chain_id, chain.seq + 1


def begin_series(connection: Connection) -> None:
    """Begin every writer's chain anew: the database was restored, so numbers went back.

    What the lost transactions held stays in the log, under the series before.
    """
    now = database_now(connection)
    for writer in connection.execute(select(chains.c.writer).distinct()).scalars().all():
        last = connection.execute(
            select(func.max(chains.c.series)).where(chains.c.writer == writer)
        ).scalar_one()
        _begin(connection, writer, max(last + 1, int(now.timestamp())), now)
    record_key_event(connection, "database_restored")


def _begin(connection: Connection, writer: str, series: int, now: datetime) -> int:
    result = connection.execute(
        chains.insert().values(writer=writer, series=series, seq=0, begun_at=now)
    )
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101 (one row was inserted)
    return int(key[0])


def record_key_event(connection: Connection, event: str, **detail: object) -> None:
    """Note what is done to keys, in the transaction that does it.

    Args:
        connection: of that transaction.
        event: as docs/evidence.md lists them.
        detail: JSON values; never a key.
    """
    chain_id, seq = take_numbers(connection, KEY_WRITER, 1)
    connection.execute(
        key_events.insert().values(
            chain_id=chain_id,
            chain_seq=seq,
            at=database_now(connection),
            event=event,
            actor=actor(),
            detail=json.dumps(_sorted(detail), ensure_ascii=False),
        )
    )


def note_key_event(engine: Engine, event: str, **detail: object) -> None:
    """Note what is done outside the database, in a transaction of its own."""
    with writing(engine) as connection:
        record_key_event(connection, event, **detail)


def _sorted(detail: Mapping[str, object]) -> dict[str, object]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in sorted(detail.items())
        if value is not None
    }


def actor() -> str:
    """Who this process runs as: "user@host"."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user needs no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[:100]
