"""The work of an EMMG: claim dirty devices, read what they are to be told, write it sealed.

The claim protocol in three steps, none of which holds a lock across an RPC:
`claim` takes devices and chooses their numbers in a short transaction; `read_orders`
reads what was ordered; `finish` writes, numbers too, only where the claim is still ours.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from operator import gt
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Select,
    bindparam,
    case,
    false,
    func,
    literal_column,
    or_,
    select,
    true,
    update,
)

from portcullis.emm import Kind
from portcullis.store.bulk import get, is_among, is_one_of, listing, literal, put
from portcullis.store.claims import (
    Claim,
    devices_claimed,
    enter,
    let_go,
    read_claim,
    read_claims,
    runs_of,
    write_claim,
)
from portcullis.store.database import (
    as_time,
    database_now,
    retried,
    see_uncommitted,
    utc_now,
    writing,
)
from portcullis.store.feed_writer import next_revision
from portcullis.store.held import HeldError, read_held
from portcullis.store.schema import (
    PRIORITIES,
    UtcDateTime,
    airings,
    claims,
    device_work,
    emms,
    messages,
)

_LONGEST_WAIT = timedelta(minutes=10)


class Claimed(NamedTuple):
    """A device that is ours until the claim ends. `wanted`: the orders it must cover.

    `held` None: the column is damaged, and no state can be sealed. `before`: epoch, sequence and
    orders sealed, as they are while nobody else writes.
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
    before: tuple[int, int, int] = (0, 0, 0)


def claim(engine: Engine, token: str, limit: int, hold: timedelta) -> list[Claimed]:
    """Claim up to `limit` due devices, fresh orders first, and choose their state numbers.

    The number is max(held + 1, Unix seconds by the database): a head-end restored from a
    backup is ahead of all it ever aired.
    """
    with writing(engine) as connection:
        see_uncommitted(connection)
        now = database_now(connection)
        enter(connection, now)
        # Before the queue: who lets go of a device has taken it from there.
        known = read_claims(connection)
        held = [one for one in known if now < one.until <= _latest(now, hold)]
        ids = _due_ids(connection, now, hold, limit, held)
        if not ids:
            return []
        mine = set(ids)
        for one in known:
            if one.token == token:
                mine |= one.device_ids
            elif one not in held and not mine.isdisjoint(one.device_ids):
                let_go(connection, one, ids)
        write_claim(connection, Claim(token, now, now + hold, runs_of(mine)))
    with engine.connect() as connection:
        return _claimed(connection, ids, now)


def _due_ids(
    connection: Connection, now: datetime, hold: timedelta, limit: int, held: Sequence[Claim]
) -> list[int]:
    """Up to `limit` due devices that are in no claim, fresh orders first."""
    ids: list[int] = []
    claimed = frozenset().union(*(one.device_ids for one in held))
    for priority in PRIORITIES:
        # As many more as are claimed, to be left out here: a server takes longer to compare.
        queue = _queue(priority, now, _latest(now, hold)).limit(len(claimed) + limit)
        (due,) = get(connection, (queue.subquery().c.device_id,))
        ids += [one for one in due if one not in claimed][: limit - len(ids)]
        if len(ids) >= limit:
            break
    return ids


Moment = datetime | BindParameter[datetime]


def _queue(priority: int, now: Moment, latest: Moment) -> Select[tuple[int]]:
    """What is due, claimed or not, in the order in which it came due."""
    work = device_work.c
    due = or_(work.due_at <= now, work.due_at > latest)
    return select(work.device_id).where(work.priority == priority, due).order_by(work.due_at)


_NOW, _LATEST = (bindparam(name, type_=UtcDateTime()) for name in ("now", "latest"))
_WAITING = select(
    *(
        select(func.count())
        .select_from(
            _queue(one, _NOW, _LATEST).limit(bindparam("most", type_=Integer())).subquery()
        )
        .scalar_subquery()
        for one in PRIORITIES
    )
)


def is_any_due(engine: Engine, hold: timedelta) -> bool:
    """Whether there may be something to claim: what an idle EMMG asks, mostly in one statement.

    There is if more devices are due than are claimed.
    """
    with engine.connect() as connection:
        see_uncommitted(connection)
        now, priorities = _due(connection, hold)
        if not priorities:
            return False
        latest = _latest(now, hold)
        claimed = devices_claimed(connection, now, latest)
        asked = {"now": now, "latest": latest, "most": claimed + 1}
        due: int = sum(connection.execute(_WAITING, asked).one())
        return due > claimed


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
def hold_on(engine: Engine, tokens: Collection[str], hold: timedelta) -> None:
    """Put off when claims end, for batches that take long; one that was lost stays lost."""
    with writing(engine) as connection:
        until = database_now(connection) + hold
        connection.execute(
            update(claims).where(claims.c.token.in_(tokens)).values(claimed_until=until)
        )


def claimed(engine: Engine, token: str) -> list[Claimed]:
    """What is claimed under a token: after a fault that hid whether the claim was committed.

    One that has ended is claimed anew by whoever is first.
    """
    with engine.connect() as connection:
        mine = read_claim(connection, token)
        if mine is None or mine.until <= database_now(connection):
            return []
        return _claimed(connection, mine.device_ids, mine.at)


_CLAIMED = (
    *(device_work.c.device_id, device_work.c.wanted, device_work.c.state_wanted),
    *(device_work.c.state_sealed, device_work.c.epoch, device_work.c.sequence),
    *(device_work.c.cause, device_work.c.tries, device_work.c.held, device_work.c.dirty_at),
    device_work.c.sealed,
)


def _claimed(connection: Connection, ids: Collection[int], at: datetime) -> list[Claimed]:
    """Devices claimed at a time, as committed: what was read of the queue may not have been."""
    found = get(
        connection,
        _CLAIMED,
        is_among(device_work.c.device_id, ids),
        device_work.c.due_at.is_not(None),
    )
    device_id, wanted, state, state_sealed, epoch, sequence, cause, tries, held, dirty_at, done = (
        found
    )
    seals_state = list(map(gt, state, state_sealed))
    least = int(at.timestamp())
    numbers = [
        (n + 1 if n >= least else least) if new else n
        for n, new in zip(sequence, seals_state, strict=True)
    ]
    fields = (
        *(device_id, wanted, seals_state, epoch, numbers, cause, [n + 1 for n in tries]),
        *(map(_held, held), dirty_at, zip(epoch, sequence, done, strict=True)),
    )
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
    with writing(engine) as connection:
        mine = read_claim(connection, token, lock=True)
        if mine is None:
            return set()
        now = database_now(connection)
        ours = mine.device_ids.intersection(done.claimed.device_id for done in batch)
        batch = [done for done in batch if done.claimed.device_id in ours]
        rows = _lock(connection, ours)
        # Also an EMMG of a release before `claims` has written nothing meanwhile.
        batch = [done for done in batch if rows[done.claimed.device_id][1:] == done.claimed.before]
        written = {done.claimed.device_id for done in batch}
        if batch:
            _settle(connection, batch, {one: rows[one][0] for one in written}, now)
        let_go(connection, mine, ours)
        if any(done.emms for done in batch):
            _write_airings(connection, batch, now)
            _write_emms(connection, batch, now)
        return written


def _lock(connection: Connection, ids: Collection[int]) -> Mapping[int, tuple[int, int, int, int]]:
    """Device → wanted, epoch, sequence and orders sealed, as they now stay."""
    work = device_work.c
    device_id, *now = get(
        connection,
        (work.device_id, work.wanted, work.epoch, work.sequence, work.sealed),
        is_one_of(work.device_id, sorted(ids)),
        lock=True,
    )
    return dict(zip(device_id, zip(*now, strict=True), strict=True))


def _settle(
    connection: Connection, batch: Sequence[Finished], wanted: Mapping[int, int], now: datetime
) -> None:
    """Have the queue and the devices' rows say what is sealed.

    wanted: device → orders by now; where they are more than were claimed, it stays dirty.
    """
    work = device_work.c
    ours = [done.claimed for done in batch]
    ids = [one.device_id for one in ours]
    dirty = {one.device_id: one.wanted for one in ours if wanted[one.device_id] > one.wanted}
    seals_state = [one.device_id for one in ours if one.seals_state]
    with_state = true() if len(seals_state) == len(ids) else is_among(work.device_id, seals_state)
    still_dirty = is_one_of(work.device_id, dirty) if dirty else false()
    covered = _each(work.wanted, dirty, ids)
    numbers = {one.device_id: one.sequence for one in ours if one.seals_state}
    held = {
        done.claimed.device_id: json.dumps(done.held, sort_keys=True)
        for done in batch
        if done.held != done.claimed.held
    }
    becomes = {
        "sequence": _each(work.sequence, numbers, ids),
        "state_sealed": case((with_state, covered), else_=work.state_sealed),
        "state_sealed_at": case((with_state, now), else_=work.state_sealed_at),
        "dirty_at": case((still_dirty, now), else_=None),
        "due_at": case((still_dirty, now), else_=None),
        "sealed": covered,
        "tries": 0,
        "last_error": None,
        "claim_token": None,
        "claim_wanted": None,
    }
    if held:  # dear to write, if only as it was
        becomes["held"] = _each(work.held, held, ids)
    connection.execute(update(device_work).where(is_among(work.device_id, ids)).values(becomes))
    for kind, column in ((Kind.MESSAGE, "sealed"), (Kind.WITHDRAWAL, "withdrawal_sealed")):
        texts = [sealed.message_id for done in batch for sealed in done.emms if sealed.kind is kind]
        if texts:
            connection.execute(
                update(messages).where(is_one_of(messages.c.message_id, texts)).values({column: 1})
            )


def _each(
    column: Column[Any], values: Mapping[int, str | int], ids: Sequence[int]
) -> ColumnElement[Any]:
    """What a column of the devices becomes: these values, or where none is said what it was.

    Values are few, devices many.
    """
    alike: dict[str, list[int]] = {}
    for device_id, value in values.items():
        alike.setdefault(literal(value), []).append(device_id)
    other = column.name
    if alike and len(values) == len(ids):
        other = max(alike, key=lambda value: len(alike[value]))
        del alike[other]
    cases = "".join(f" WHEN device_id IN {listing(some)} THEN {to}" for to, some in alike.items())
    return literal_column(f"CASE{cases} ELSE {other} END" if cases else other, column.type)


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
    laid_out: dict[bool, list[str]] = {True: [], False: []}
    for emm in sealed:
        laid_out[emm.cause == "order"] += _emm_rows(emm, at)
    shrunk = _shrunk(connection, sealed)
    revision = next_revision(connection)
    for is_order, rows in laid_out.items():
        columns = (*_SLOT, *_OF_AN_ORDER, "revision") if is_order else (*_SLOT, "revision")
        # An order's EMM has not been aired; a re-key, of states only, keeps when its slot was.
        update = (*columns, "first_aired_at") if is_order else columns
        put(connection, emms, (*_KEY, *columns), [f"({row},{revision})" for row in rows], update)
    _withdraw_parts(connection, shrunk, revision)


def _shrunk(connection: Connection, sealed: Sequence[SealedEmm]) -> list[tuple[int, int]]:
    """Device and message of each that has parts on air that its new set no longer has."""
    slot = emms.c
    parts = {(emm.device_id, emm.message_id): len(emm.sections) for emm in sealed}
    on_air = get(
        connection,
        (slot.device_id, slot.message_id, slot.part),
        is_among(slot.device_id, (device_id for device_id, _ in parts)),
        slot.part > 1,
        slot.tombstone == 0,
    )
    return [
        (device_id, message_id)
        for device_id, message_id, part in zip(*on_air, strict=True)
        if part > parts.get((device_id, message_id), part)
    ]


def _withdraw_parts(
    connection: Connection, shrunk: Sequence[tuple[int, int]], revision: int
) -> None:
    """Parts that the new set no longer has leave the carousel."""
    slot = emms.c
    states = [one for one in shrunk if not one[1]]
    texts = [one for one in shrunk if one[1]]
    for some in filter(None, (states, texts)):
        device_ids, message_ids = zip(*some, strict=True)
        connection.execute(
            update(emms)
            .where(
                is_among(slot.device_id, device_ids),
                is_one_of(slot.message_id, set(message_ids)),
                slot.part > 1,
                slot.revision < revision,
                slot.tombstone == 0,
            )
            .values(tombstone=1, revision=revision)
        )


def _emm_rows(emm: SealedEmm, now: str) -> Iterator[str]:
    """Each part's row but for its revision: until that is committed, all other writers wait."""
    device_id, message_id, kind, epoch, number, cause, covers, sections, _, _, _ = emm
    before = f"{device_id},{message_id},"
    between = f",{len(sections)},{_KINDS[kind]},{epoch},{number},{_cause(cause)},{covers},0,x'"
    after = f"',{now}"
    if cause == "order":
        after += f",{literal(emm.starts_at)},{literal(emm.ends_at)},{literal(emm.ordered_at)}"
    for part, section in enumerate(sections, start=1):
        yield f"{before}{part}{between}{section.hex()}{after}"


_KINDS = {kind: str(int(kind)) for kind in Kind}
_cause = lru_cache(maxsize=8)(literal)
