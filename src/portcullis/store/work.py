"""The work of an EMMG: claim dirty devices, read what they are to be told, write it sealed.

The claim protocol in three steps, none of which holds a lock across an RPC:
`claim` takes devices and their numbers in a short transaction; `read_orders`
reads what was ordered; `finish` writes only where the claim is still ours.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from operator import gt
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    case,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.sql.elements import TextClause

from portcullis.emm import Kind
from portcullis.store.bulk import get, is_one_of, literal, put
from portcullis.store.database import as_time, database_now, greatest, retried, utc_now, writing
from portcullis.store.feed_writer import next_revision
from portcullis.store.held import HeldError, read_held
from portcullis.store.schema import (
    PRIORITY_ORDER,
    PRIORITY_REKEY,
    PRIORITY_RESEAL,
    airings,
    device_work,
    emms,
    messages,
)

_LONGEST_WAIT = timedelta(minutes=10)
PRIORITIES = (PRIORITY_ORDER, PRIORITY_REKEY, PRIORITY_RESEAL)


class Claimed(NamedTuple):
    """A device that is ours until the claim's deadline. `wanted`: the orders it must cover.

    `held` None: the column is damaged, and no state can be sealed.
    """

    device_id: int
    wanted: int
    seals_state: bool
    epoch: int
    sequence: int
    cause: str
    tries: int
    held: Mapping[int, int] | None
    dirty_at: datetime | None = None


def claim(engine: Engine, token: str, limit: int, hold: timedelta) -> list[Claimed]:
    """Claim up to `limit` due devices, fresh orders first, and take their state numbers.

    The number is max(held + 1, Unix seconds by the database): a head-end restored from a
    backup is ahead of all it ever aired.
    """
    if not _is_any_due(engine, hold):
        return []
    work = device_work.c
    with writing(engine) as connection:
        now = database_now(connection)
        ids: list[int] = []
        for priority in PRIORITIES:
            due = (
                select(work.device_id)
                .where(
                    work.priority == priority,
                    or_(work.due_at <= now, work.due_at > _latest(now, hold)),
                )
                .order_by(work.due_at)
                .limit(limit - len(ids))
                .with_for_update(skip_locked=True)
            )
            ids += connection.execute(due).scalars()
            if len(ids) >= limit:
                break
        if not ids:
            return []
        here = is_one_of(work.device_id, ids)
        connection.execute(
            update(device_work)
            .where(here)
            .values(
                sequence=case(
                    (
                        work.state_wanted > work.state_sealed,
                        greatest(work.sequence + 1, int(now.timestamp())),
                    ),
                    else_=work.sequence,
                ),
                claim_token=token,
                claim_wanted=work.wanted,
                due_at=now + hold,
                tries=work.tries + 1,
            )
        )
        return _claimed(connection, here)


def _is_any_due(engine: Engine, hold: timedelta) -> bool:
    """Whether there may be something to claim: what an idle EMMG asks, in one statement."""
    due_at = device_work.c.due_at
    ends = [
        select(end(due_at)).where(device_work.c.priority == priority).scalar_subquery()
        for priority in PRIORITIES
        for end in (func.min, func.max)
    ]
    with engine.connect() as connection:
        said, *found = connection.execute(select(utc_now(), *ends)).one()
    now = as_time(said)
    return any(at is not None and (at <= now or at > _latest(now, hold)) for at in found)


def _latest(now: datetime, hold: timedelta) -> datetime:
    """The latest that anything is put off to: beyond it, the clock has stepped back since."""
    return now + hold + _LONGEST_WAIT


@retried
def hold_on(engine: Engine, tokens: Collection[str], hold: timedelta) -> None:
    """Put off when claims come due, for a batch that takes long; one that was lost stays lost."""
    work = device_work.c
    with writing(engine) as connection:
        connection.execute(
            update(device_work)
            .where(work.claim_token.in_(tokens))
            .values(due_at=database_now(connection) + hold)
        )


def claimed(engine: Engine, token: str) -> list[Claimed]:
    """What is claimed under a token: after a fault that hid whether the claim was committed."""
    with engine.connect() as connection:
        return _claimed(connection, device_work.c.claim_token == token)


def _claimed(connection: Connection, where: ColumnElement[bool] | TextClause) -> list[Claimed]:
    work = device_work.c
    columns: tuple[Column[Any], ...] = (
        *(work.device_id, work.wanted, work.state_wanted, work.state_sealed),
        *(work.epoch, work.sequence, work.cause, work.tries, work.held, work.dirty_at),
    )
    device_id, wanted, state, sealed, *others, held, dirty_at = get(connection, columns, where)
    seals_state = map(gt, state, sealed)
    fields = (device_id, wanted, seals_state, *others, map(_held, held), dirty_at)
    return list(map(Claimed._make, zip(*fields, strict=True)))


def _held(text: str) -> Mapping[int, int] | None:
    try:
        return read_held(text)
    except HeldError:
        return None


class SealedEmm(NamedTuple):
    """One set of sections, ready for the carousel. `message_id` 0: the state."""

    device_id: int
    message_id: int
    kind: Kind
    epoch: int
    number: int
    cause: str
    covers: int
    sections: Sequence[bytes]
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    ordered_at: datetime | None = None


class Finished(NamedTuple):
    """One claimed device with all that was sealed for it; `held` as device_work keeps it."""

    claimed: Claimed
    emms: Sequence[SealedEmm]
    held: Mapping[int, int] | None


@retried
def finish(engine: Engine, token: str, batch: Sequence[Finished]) -> set[int]:
    """Write what was sealed, for the devices whose claim is still ours; returns those."""
    work = device_work.c
    with writing(engine) as connection:
        ours = set(
            connection.execute(
                select(work.device_id)
                .where(
                    is_one_of(work.device_id, (done.claimed.device_id for done in batch)),
                    work.claim_token == token,
                )
                .order_by(work.device_id)
                .with_for_update()
            ).scalars()
        )
        mine = [done for done in batch if done.claimed.device_id in ours]
        if not mine:
            return set()
        mine.sort(key=lambda done: done.claimed.device_id)
        now = database_now(connection)
        _settle(connection, mine, now)
        sealed = [emm for done in mine for emm in done.emms]
        if sealed:
            _write_airings(connection, sealed, now)
            _write_emms(connection, sealed, now)
        return ours


def _settle(connection: Connection, mine: Sequence[Finished], now: datetime) -> None:
    work = device_work.c
    still_dirty = work.wanted > work.claim_wanted
    # MySQL assigns from left to right: claim_wanted and claim_token go last.
    settled = (
        (work.dirty_at, case((still_dirty, now), else_=None)),
        (work.due_at, case((still_dirty, now), else_=None)),
        (work.sealed, work.claim_wanted),
        (work.tries, 0),
        (work.last_error, None),
        (work.claim_token, None),
        (work.claim_wanted, None),
    )
    with_state = (
        (work.held, _held_now(mine)),
        (work.state_sealed, work.claim_wanted),
        (work.state_sealed_at, now),
        *settled,
    )
    for values, seals_state in ((with_state, True), (settled, False)):
        ids = [d.claimed.device_id for d in mine if d.claimed.seals_state == seals_state]
        if ids:
            connection.execute(
                update(device_work).where(is_one_of(work.device_id, ids)).ordered_values(*values)
            )
    for kind, column in ((Kind.MESSAGE, "sealed"), (Kind.WITHDRAWAL, "withdrawal_sealed")):
        ids = [sealed.message_id for done in mine for sealed in done.emms if sealed.kind is kind]
        if ids:
            connection.execute(
                update(messages).where(is_one_of(messages.c.message_id, ids)).values({column: 1})
            )


def _held_now(mine: Sequence[Finished]) -> ColumnElement[str]:
    """What `held` becomes: bundles of products are few, boxes many."""
    ids: dict[str, list[int]] = {}
    for done in mine:
        if done.held != done.claimed.held:
            ids.setdefault(json.dumps(done.held, sort_keys=True), []).append(done.claimed.device_id)
    cases = "".join(
        f" WHEN {is_one_of(device_work.c.device_id, some)} THEN {literal(held)}"
        for held, some in ids.items()
    )
    return literal_column(f"CASE{cases} ELSE held END" if ids else "held", device_work.c.held.type)


def _write_airings(connection: Connection, sealed: Sequence[SealedEmm], now: datetime) -> None:
    """Have the orders that these EMMs cover wait for their first airing."""
    at = literal(now)
    rows = [
        f"({emm.device_id},{emm.message_id},{emm.covers},{at},NULL)"
        for emm in sealed
        if emm.cause == "order"
    ]
    columns = ("device_id", "message_id", "wanted", "sealed_at", "first_aired_at")
    put(connection, airings, columns, rows, ["sealed_at"])


_SLOT = (
    *("parts", "kind", "epoch", "number", "cause", "covers", "revision", "tombstone", "section"),
    *("starts_at", "ends_at", "sealed_at"),
)
_OF_AN_ORDER = ("first_aired_at", "ordered_at")
_EMM_COLUMNS = ("device_id", "message_id", "part", *_SLOT, *_OF_AN_ORDER)


def _write_emms(connection: Connection, sealed: Sequence[SealedEmm], now: datetime) -> None:
    revision, at = next_revision(connection), literal(now)
    for is_order in (True, False):
        chosen = [emm for emm in sealed if (emm.cause == "order") == is_order]
        rows = [row for emm in chosen for row in _emm_rows(emm, revision, at)]
        # An order's EMM has not been aired; a re-key keeps when its slot first was.
        put(connection, emms, _EMM_COLUMNS, rows, (*_SLOT, *_OF_AN_ORDER) if is_order else _SLOT)
    # Parts that the new set no longer has leave the carousel.
    slot = emms.c
    for message_ids in ({0}, {emm.message_id for emm in sealed} - {0}):
        ids = [emm.device_id for emm in sealed if emm.message_id in message_ids]
        if ids:
            connection.execute(
                update(emms)
                .where(
                    is_one_of(slot.device_id, ids),
                    is_one_of(slot.message_id, message_ids),
                    slot.part > 1,
                    slot.revision < revision,
                    slot.tombstone == 0,
                )
                .values(tombstone=1, revision=revision)
            )


def _emm_rows(emm: SealedEmm, revision: int, now: str) -> Iterator[str]:
    slot = f"({emm.device_id},{emm.message_id}"
    numbers = f"{len(emm.sections)},{int(emm.kind)},{emm.epoch},{emm.number}"
    numbers += f",{literal(emm.cause)},{emm.covers},{revision},0"
    window = f"{literal(emm.starts_at)},{literal(emm.ends_at)},{now},NULL,{literal(emm.ordered_at)}"
    for part, section in enumerate(emm.sections, start=1):
        yield f"{slot},{part},{numbers},x'{section.hex()}',{window})"
