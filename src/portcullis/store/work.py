"""The work of an EMMG: claim dirty devices, read what they are to be told, write it sealed.

The claim protocol in three steps, none of which holds a lock across an RPC:
`claim` takes devices and their numbers in a short transaction; `read_orders`
reads what was ordered; `finish` writes only where the claim is still ours.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from operator import gt
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    and_,
    case,
    func,
    literal_column,
    or_,
    select,
    true,
    update,
)

from portcullis.emm import Kind
from portcullis.store.bulk import get, is_among, is_one_of, listing, literal, put
from portcullis.store.database import (
    as_time,
    chunked,
    database_now,
    greatest,
    retried,
    see_uncommitted,
    utc_now,
    writing,
)
from portcullis.store.feed_writer import next_revision
from portcullis.store.held import HeldError, read_held
from portcullis.store.schema import (
    PRIORITIES,
    airings,
    device_work,
    emms,
    messages,
)

_LONGEST_WAIT = timedelta(minutes=10)
_AHEAD = 2
"""So many times as many devices are looked at as are to be claimed: others claim the first."""


class Claimed(NamedTuple):
    """A device that is ours until the claim's deadline. `wanted`: the orders it must cover.

    `held` None: the column is damaged, and no state can be sealed. `parts`: of the state in `emms`.
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
    parts: int = 0


def claim(engine: Engine, token: str, limit: int, hold: timedelta) -> list[Claimed]:
    """Claim up to `limit` due devices, fresh orders first, and take their state numbers.

    The number is max(held + 1, Unix seconds by the database): a head-end restored from a
    backup is ahead of all it ever aired.
    """
    work = device_work.c
    with writing(engine) as connection:
        see_uncommitted(connection)
        now, priorities = _due(connection, hold)
        ids = _lock_due(connection, priorities, now, hold, limit)
        if not ids:
            return []
        here = is_among(work.device_id, ids)
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


def _lock_due(
    connection: Connection,
    priorities: Sequence[int],
    now: datetime,
    hold: timedelta,
    limit: int,
) -> list[int]:
    """Lock up to `limit` due devices that nobody else has locked.

    The head of the queue is where all look, and full of entries that others have just taken away:
    it is read without locks, and what it names is locked by device.
    """
    work = device_work.c
    ids: list[int] = []
    for priority in priorities:
        is_due = and_(
            work.priority == priority,
            or_(work.due_at <= now, work.due_at > _latest(now, hold)),
        )
        queue = select(work.device_id).where(is_due).order_by(work.due_at).limit(_AHEAD * limit)
        (queued,) = get(connection, (queue.subquery().c.device_id,))
        for some in chunked(queued, limit):
            free = (
                select(work.device_id)
                .where(is_among(work.device_id, some), is_due)
                .limit(limit - len(ids))
                .with_for_update(skip_locked=True)
                .subquery()
            )
            ids += get(connection, (free.c.device_id,))[0]
            if len(ids) >= limit:
                return ids
    return ids


def is_any_due(engine: Engine, hold: timedelta) -> bool:
    """Whether there may be something to claim: what an idle EMMG asks, in one statement."""
    with engine.connect() as connection:
        see_uncommitted(connection)
        _, priorities = _due(connection, hold)
    return bool(priorities)


_ENDS = select(
    utc_now(),
    *(
        select(end(device_work.c.due_at)).where(device_work.c.priority == one).scalar_subquery()
        for one in PRIORITIES
        for end in (func.min, func.max)
    ),
)


def _due(connection: Connection, hold: timedelta) -> tuple[datetime, Sequence[int]]:
    """The database's time, and the priorities of which something is due by it."""
    said, *ends = connection.execute(_ENDS).one()
    now = as_time(said)
    return now, [
        priority
        for priority, first, last in zip(PRIORITIES, ends[::2], ends[1::2], strict=True)
        if first is not None and (first <= now or last > _latest(now, hold))
    ]


def _latest(now: datetime, hold: timedelta) -> datetime:
    """The latest that anything is put off to: beyond it, the clock has stepped back since."""
    return now + hold + _LONGEST_WAIT


@retried
def hold_on(engine: Engine, batches: Mapping[str, Collection[int]], hold: timedelta) -> None:
    """Put off when claims come due, for batches that take long; one that was lost stays lost.

    batches: token → the devices claimed under it.
    """
    work = device_work.c
    with writing(engine) as connection:
        due_at = database_now(connection) + hold
        for token, device_ids in batches.items():
            connection.execute(
                update(device_work)
                .where(is_among(work.device_id, device_ids), work.claim_token == token)
                .values(due_at=due_at)
            )


def claimed(engine: Engine, token: str) -> list[Claimed]:
    """What is claimed under a token: after a fault that hid whether the claim was committed.

    Found among the few that have not come due; one that has is claimed anew by whoever is first.
    """
    work = device_work.c
    with engine.connect() as connection:
        now = database_now(connection)
        return _claimed(
            connection,
            and_(work.priority.in_(PRIORITIES), work.due_at > now, work.claim_token == token),
        )


_CLAIMED = (
    *(device_work.c.device_id, device_work.c.wanted),
    *(device_work.c.state_wanted, device_work.c.state_sealed),
    *(device_work.c.epoch, device_work.c.sequence, device_work.c.cause, device_work.c.tries),
    *(device_work.c.held, device_work.c.dirty_at, func.coalesce(emms.c.parts, 0)),
)
_STATE = and_(emms.c.device_id == device_work.c.device_id, emms.c.message_id == 0, emms.c.part == 1)


def _claimed(connection: Connection, where: ColumnElement[bool]) -> list[Claimed]:
    device_id, wanted, state, sealed, *others, held, dirty_at, parts = get(
        connection, _CLAIMED, where, source=device_work.outerjoin(emms, _STATE)
    )
    seals_state = map(gt, state, sealed)
    fields = (device_id, wanted, seals_state, *others, map(_held, held), dirty_at, parts)
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


def finish(engine: Engine, token: str, batch: Sequence[Finished]) -> set[int]:
    """Write what was sealed, for the devices whose claim is still ours; returns those."""
    batch = sorted(batch, key=lambda done: done.claimed.device_id)  # as all lock rows
    while batch:
        try:
            _write(engine, token, batch)
            break
        except _LostError:
            ours = _still_ours(engine, token, batch)
            batch = [done for done in batch if done.claimed.device_id in ours]
    return {done.claimed.device_id for done in batch}


class _LostError(Exception):
    """Another has taken over some device of a batch: nothing of it is written."""


def _still_ours(engine: Engine, token: str, batch: Sequence[Finished]) -> set[int]:
    work = device_work.c
    here = is_among(work.device_id, (done.claimed.device_id for done in batch))
    with engine.connect() as connection:
        return set(get(connection, (work.device_id,), here, work.claim_token == token)[0])


@retried
def _write(engine: Engine, token: str, batch: Sequence[Finished]) -> None:
    with writing(engine) as connection:
        now = database_now(connection)
        _settle(connection, token, batch, now)
        if any(done.emms for done in batch):
            _write_airings(connection, batch, now)
            _write_emms(connection, batch, now)


def _settle(connection: Connection, token: str, batch: Sequence[Finished], now: datetime) -> None:
    """Let go of the devices, with what is sealed for them; raises _LostError."""
    work = device_work.c
    here = is_among(work.device_id, (done.claimed.device_id for done in batch))
    still_dirty = work.wanted > work.claim_wanted
    with_state = _is_with_state(batch)
    written = connection.execute(
        update(device_work)
        .where(here, work.claim_token == token)
        # MySQL assigns from left to right: claim_wanted and claim_token go last.
        .ordered_values(
            (work.held, _held_now(batch)),
            (work.state_sealed, case((with_state, work.claim_wanted), else_=work.state_sealed)),
            (work.state_sealed_at, case((with_state, now), else_=work.state_sealed_at)),
            (work.dirty_at, case((still_dirty, now), else_=None)),
            (work.due_at, case((still_dirty, now), else_=None)),
            (work.sealed, work.claim_wanted),
            (work.tries, 0),
            (work.last_error, None),
            (work.claim_token, None),
            (work.claim_wanted, None),
        )
    )
    if written.rowcount < len(batch):
        raise _LostError
    for kind, column in ((Kind.MESSAGE, "sealed"), (Kind.WITHDRAWAL, "withdrawal_sealed")):
        ids = [sealed.message_id for done in batch for sealed in done.emms if sealed.kind is kind]
        if ids:
            connection.execute(
                update(messages).where(is_one_of(messages.c.message_id, ids)).values({column: 1})
            )


def _is_with_state(batch: Sequence[Finished]) -> ColumnElement[bool]:
    ids = [done.claimed.device_id for done in batch if done.claimed.seals_state]
    return true() if len(ids) == len(batch) else is_among(device_work.c.device_id, ids)


def _held_now(batch: Sequence[Finished]) -> ColumnElement[str]:
    """What `held` becomes: bundles of products are few, boxes many."""
    ids: dict[str, list[int]] = {}
    for done in batch:
        if done.held != done.claimed.held:
            ids.setdefault(json.dumps(done.held, sort_keys=True), []).append(done.claimed.device_id)
    cases = "".join(
        f" WHEN device_id IN {listing(some)} THEN {literal(held)}" for held, some in ids.items()
    )
    return literal_column(f"CASE{cases} ELSE held END" if ids else "held", device_work.c.held.type)


def _write_airings(connection: Connection, batch: Sequence[Finished], now: datetime) -> None:
    """Have the orders that these EMMs cover wait for their first airing."""
    at = literal(now)
    rows = [
        f"({emm.device_id},{emm.message_id},{emm.covers},{at},NULL)"
        for done in batch
        for emm in done.emms
        if emm.cause == "order"
    ]
    columns = ("device_id", "message_id", "wanted", "sealed_at", "first_aired_at")
    put(connection, airings, columns, rows, ["sealed_at"])


_KEY = ("device_id", "message_id", "part")
_SLOT = (
    *("parts", "kind", "epoch", "number", "cause", "covers", "tombstone", "section", "sealed_at"),
)
_OF_AN_ORDER = ("starts_at", "ends_at", "ordered_at")


def _write_emms(connection: Connection, batch: Sequence[Finished], now: datetime) -> None:
    at = literal(now)
    sealed = [emm for done in batch for emm in done.emms]
    laid_out = {
        is_order: [
            row
            for emm in sealed
            if (emm.cause == "order") == is_order
            for row in _emm_rows(emm, at)
        ]
        for is_order in (True, False)
    }
    revision = next_revision(connection)
    for is_order, rows in laid_out.items():
        columns = (*_SLOT, *_OF_AN_ORDER, "revision") if is_order else (*_SLOT, "revision")
        # An order's EMM has not been aired; a re-key, of states only, keeps when its slot was.
        update = (*columns, "first_aired_at") if is_order else columns
        put(connection, emms, (*_KEY, *columns), [f"({row},{revision})" for row in rows], update)
    _withdraw_parts(connection, batch, revision)


def _withdraw_parts(connection: Connection, batch: Sequence[Finished], revision: int) -> None:
    """Parts that the new set no longer has leave the carousel."""
    sealed = [(done.claimed, emm) for done in batch for emm in done.emms]
    states = [
        c.device_id for c, emm in sealed if not emm.message_id and c.parts > len(emm.sections)
    ]
    texts = [(c.device_id, emm.message_id) for c, emm in sealed if emm.message_id]
    slot = emms.c
    for ids, message_ids in ((states, {0}), ([box for box, _ in texts], {one for _, one in texts})):
        if ids:
            connection.execute(
                update(emms)
                .where(
                    is_among(slot.device_id, ids),
                    is_one_of(slot.message_id, message_ids),
                    slot.part > 1,
                    slot.revision < revision,
                    slot.tombstone == 0,
                )
                .values(tombstone=1, revision=revision)
            )


def _emm_rows(emm: SealedEmm, now: str) -> Iterator[str]:
    """Each part's row but for its revision: until that is committed, all other writers wait."""
    before = f"{emm.device_id},{emm.message_id},"
    between = f",{len(emm.sections)},{int(emm.kind)},{emm.epoch},{emm.number}"
    between += f",{_cause(emm.cause)},{emm.covers},0,x'"
    after = f"',{now}"
    if emm.cause == "order":
        after += f",{literal(emm.starts_at)},{literal(emm.ends_at)},{literal(emm.ordered_at)}"
    for part, section in enumerate(emm.sections, start=1):
        yield f"{before}{part}{between}{section.hex()}{after}"


_cause = lru_cache(maxsize=8)(literal)
