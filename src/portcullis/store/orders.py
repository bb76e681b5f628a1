"""Orders into the tables: a group of requests in one transaction.

The order of things is what makes two gateways right: replay is looked up
first; the devices of the group are locked in ascending order; orders are
applied in arrival order, in memory; then everything is written. Where another
gateway was quicker with a transaction id or a new device, the duplicate key
rolls the group back, and running it again reads what the other wrote. Where
the answer to a commit was lost, the ids of the requests, which stay the same,
tell whether it was done.
"""

import itertools
import secrets
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFreeError

from portcullis.runtime.errors import PortcullisError
from portcullis.store.applying import Effect, Group, Refusal
from portcullis.store.bulk import Script, row_of
from portcullis.store.database import (
    PATIENCE_S,
    back_off,
    is_away,
    is_denied,
    is_transient,
    reason_of,
    writing,
)
from portcullis.store.group_rows import load, save
from portcullis.store.schema import messages, requests, transactions

ACCEPTED = "accepted"
_NOT_FOR_THIS_CLIENT = ("insufficient_scope", "not_permitted")


class DatabaseUnavailableError(PortcullisError):
    """The database cannot be reached, or is too busy, after a bounded number of tries."""


class DatabaseDeniedError(DatabaseUnavailableError):
    """The database denies a right that orders need: until it is granted no order is written."""


class NewRequest(msgspec.Struct, frozen=True):
    """One request as it goes into the tables.

    Attributes:
        body: canonical values as given; as received (one key, "raw") when refused.
        body_hash: SHA-256 over kind and canonical values; None for a product.
        refusal: why the request was refused before the tables were looked at.
        allows_device: whether the client may touch a device, for orders that name another thing.
    """

    client_id: str
    transaction_id: str | None
    kind: str
    body: Mapping[str, object]
    body_hash: bytes | None = None
    device_id: int | None = None
    product_id: int | None = None
    message_id: int | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    refusal: Refusal | None = None
    allows_device: Callable[[int], bool] = lambda _device_id: True


class Accepted(msgspec.Struct, frozen=True):
    """Committed. `created`: a product that was not there before."""

    request_id: str
    accepted_at: datetime
    message_id: int | None = None
    created: bool = False


class Refused(msgspec.Struct, frozen=True):
    """Refused with a problem's code. No `request_id`: not even that could be written."""

    code: str
    detail: str
    request_id: str | None = None


Result = Accepted | Refused


def apply_requests(
    engine: Engine, group: Sequence[NewRequest], writer: str = "gateway"
) -> list[Result]:
    """Apply a group in one transaction; one result each, in order, after the commit.

    writer: whose chain of evidence the requests join.

    Raises DatabaseUnavailableError; then it is not known whether the group was committed, and
    the same orders may be given again. DatabaseDeniedError: they were not.
    """
    give_up_at = float("inf")
    request_ids: list[str] = []
    results: list[Result] = []  # of the attempt that came to its commit, if one did
    for attempt in itertools.count():
        try:
            with writing(engine) as connection:
                if results and _is_written(connection, request_ids):
                    return results
                results = _apply(connection, group, request_ids, writer)
        except IntegrityError as error:
            reason: Exception = error  # another gateway was quicker: read what it wrote
        except (OperationalError, InterfaceError) as error:
            if not is_transient(error):
                raise _refusal(error) from error
            reason = error
        except NoConnectionFreeError as error:
            raise DatabaseUnavailableError("no connection to the database is free") from error
        else:
            return results
        if time.monotonic() > give_up_at:
            raise DatabaseUnavailableError("the database is too busy") from reason
        give_up_at = min(give_up_at, time.monotonic() + PATIENCE_S)
        back_off(attempt)
    raise AssertionError  # count() does not end


def _refusal(error: DBAPIError) -> DatabaseUnavailableError:
    if is_denied(error):
        return DatabaseDeniedError(reason_of(error))
    if is_away(error):
        return DatabaseUnavailableError("the database cannot be reached")
    return DatabaseUnavailableError("the database refuses to work")


def _is_written(connection: Connection, request_ids: Sequence[str]) -> bool:
    """Whether an attempt whose commit was not answered was committed all the same."""
    written = select(requests.c.request_id).where(requests.c.request_id.in_(request_ids))
    return connection.execute(written.limit(1)).first() is not None


_REQUEST = (
    *("request_id", "client_id", "transaction_id", "kind"),
    *("device_id", "product_id", "message_id"),
    *("body", "outcome", "detail"),
    *("wanted", "received_at", "chain_id", "chain_seq"),
)
_TRANSACTION = (
    *("client_id", "transaction_id", "request_id"),
    *("body_hash", "message_id", "accepted_at"),
)


def _apply(
    connection: Connection, batch: Sequence[NewRequest], request_ids: list[str], writer: str
) -> list[Result]:
    """Write a group; `request_ids`, one for each, are made by the first attempt."""
    loaded = load(connection, batch, writer)
    group, seq = loaded.group, loaded.chain.seq
    request_ids += _request_ids(group.now, len(batch) - len(request_ids))
    known: dict[tuple[str, str | None], tuple[bytes, Accepted]] = {
        key: (one.body_hash, Accepted(one.request_id, one.accepted_at, one.message_id))
        for key, one in loaded.transactions.items()
    }
    request_rows: list[str] = []
    transaction_rows: list[str] = []
    results: list[Result] = []
    for request, request_id in zip(batch, request_ids, strict=True):
        key = (request.client_id, request.transaction_id)
        if (earlier := known.get(key)) is not None and request.body_hash == earlier[0]:
            results.append(earlier[1])
            continue
        seq += 1
        outcome, detail = ACCEPTED, None
        try:
            effect = _effect(group, request, is_used=earlier is not None)
        except Refusal as refusal:
            effect = Effect(request.device_id, message_id=request.message_id)
            outcome, detail = refusal.code, refusal.detail[:500]
            results.append(Refused(refusal.code, refusal.detail, request_id))
        else:
            if effect.message is not None:
                effect.message_id = _insert_message(connection, effect.message)
            accepted = Accepted(request_id, group.now, effect.message_id, effect.created)
            results.append(accepted)
            if request.body_hash is not None:
                known[key] = (request.body_hash, accepted)
                transaction_rows.append(
                    row_of(*key, request_id, request.body_hash, effect.message_id, group.now)
                )
        request_rows.append(
            row_of(
                *(request_id, *key, request.kind),
                *(effect.device_id, request.product_id, effect.message_id),
                *(_json({**request.body, **effect.resolved}), outcome, detail),
                *(effect.wanted, group.now, loaded.chain.chain_id, seq),
            )
        )
    script = Script(connection)
    save(connection, group, script)
    if request_rows:
        script.add(loaded.chain.taking(len(request_rows)))
    script.put(requests, _REQUEST, request_rows)
    script.put(transactions, _TRANSACTION, transaction_rows)
    script.run()
    return results


def _effect(group: Group, request: NewRequest, *, is_used: bool) -> Effect:
    refusal = request.refusal
    # What the client may not do says nothing about the ids it has used.
    if is_used and (refusal is None or refusal.code not in _NOT_FOR_THIS_CLIENT):
        raise Refusal("transaction_conflict", "this transaction_id stands for another order")
    if refusal is not None:
        raise refusal
    return group.apply(request)


def _insert_message(connection: Connection, values: Mapping[str, object]) -> int:
    result = connection.execute(messages.insert().values(**values))
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101 (one row was inserted)
    return int(key[0])


def _request_ids(now: datetime, count: int) -> list[str]:
    """UUIDv7 in hex (RFC 9562 5.7): milliseconds, the place in the group, random bits."""
    milliseconds = int(now.timestamp() * 1000)
    high = milliseconds << 80 | 7 << 76 | 0b10 << 62
    randoms = struct.iter_unpack("=Q", secrets.token_bytes(8 * count))
    return [
        f"{high | (place & 0xFFF) << 64 | random >> 2:032x}"
        for place, (random,) in enumerate(randoms)
    ]


def _json(body: Mapping[str, object]) -> str:
    return msgspec.json.encode(body).decode()
