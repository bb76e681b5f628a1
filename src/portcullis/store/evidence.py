"""What is to be kept as evidence, read in the order of its numbers."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, func, select

from portcullis.store.chains import KEY_WRITER
from portcullis.store.schema import chains, key_events, requests

MISSING = b'{"type":"missing"}'
"""The record in place of a row that is not there."""


@dataclass(frozen=True)
class Chain:
    """One writer's numbers: `seq` is the last one that is committed."""

    chain_id: int
    writer: str
    series: int
    seq: int
    begun_at: datetime

    @property
    def name(self) -> str:
        """As the log names it."""
        return f"{self.writer}/{self.series}"

    @property
    def table(self) -> Table:
        """Where its rows are."""
        return key_events if self.writer == KEY_WRITER else requests


def read_chains(engine: Engine) -> list[Chain]:
    """Every chain, as it was begun."""
    columns = [chains.c[name] for name in Chain.__dataclass_fields__]
    with engine.connect() as connection:
        return [
            Chain(*row)
            for row in connection.execute(select(*columns).order_by(chains.c.chain_id)).all()
        ]


def lowest_number(engine: Engine, chain: Chain) -> int | None:
    """The first number that is still there; None: no row is."""
    table = chain.table
    with engine.connect() as connection:
        lowest: int | None = connection.execute(
            select(func.min(table.c.chain_seq)).where(table.c.chain_id == chain.chain_id)
        ).scalar_one()
        return lowest


def read_records(engine: Engine, chain: Chain, first: int, last: int) -> list[bytes]:
    """The records `first` to `last` of a chain, in JSON; MISSING in place of what is not there."""
    with engine.connect() as connection:
        found = _found(connection, chain, first, last)
    return [found.get(seq, MISSING) for seq in range(first, last + 1)]


def _found(connection: Connection, chain: Chain, first: int, last: int) -> dict[int, bytes]:
    table = chain.table
    rows = connection.execute(
        select(table).where(
            table.c.chain_id == chain.chain_id, table.c.chain_seq.between(first, last)
        )
    )
    encode = _RECORD[table.name]
    return {row.chain_seq: _json(encode(row)) for row in rows}


def count_unchained(engine: Engine, since: datetime) -> int:
    """Requests received since then that are in no chain."""
    with engine.connect() as connection:
        return connection.execute(
            select(func.count())
            .select_from(requests)
            .where(requests.c.chain_id.is_(None), requests.c.received_at > since)
        ).scalar_one()


def _request(row: Row[Any]) -> dict[str, object]:
    return {
        "type": "request",
        "time": _time(row.received_at),
        "request_id": row.request_id,
        "client_id": row.client_id,
        "transaction_id": row.transaction_id,
        "call": row.kind,
        "device_id": None if row.device_id is None else str(row.device_id),
        "product_id": row.product_id,
        "message_id": row.message_id,
        "outcome": row.outcome,
        "detail": row.detail,
        "wanted": row.wanted,
        "body": row.body,
    }


def _key_event(row: Row[Any]) -> dict[str, object]:
    return {
        "type": "key_event",
        "time": _time(row.at),
        "event": row.event,
        "actor": row.actor,
        "detail": row.detail,
    }


_RECORD: Mapping[str, Callable[[Row[Any]], dict[str, object]]] = {
    requests.name: _request,
    key_events.name: _key_event,
}


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _json(record: Mapping[str, object]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
