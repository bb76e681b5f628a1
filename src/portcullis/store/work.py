"""The work of an EMMG: claim dirty devices, read what they are to be told, write it sealed.

The claim protocol in three steps, none of which holds a lock across an RPC:
`claim` takes devices and chooses their numbers in a short transaction; `read_orders`
reads what was ordered; `finish` writes, numbers too, only where the claim is still ours.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from operator import gt
from typing import NamedTuple

from sqlalchemy import Connection, Engine, update

from portcullis.emm import Kind
from portcullis.store.bulk import Script, among, listing, literal
from portcullis.store.claims import Claim, claim_under, claims_of, let_go, runs_of, write_claim
from portcullis.store.database import database_now, retried, writing
from portcullis.store.feed_writer import next_revision
from portcullis.store.held import HeldError, read_held
from portcullis.store.queue import Queue, latest
from portcullis.store.readings import NOW, Reading, place, read
from portcullis.store.schema import airings, claims, device_work, emms


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
        queue = Queue(connection, hold)
        now = queue.now
        held = [one for one in queue.claims if now < one.until <= latest(now, hold)]
        taken = frozenset().union(*(one.device_ids for one in held))
        found = _claimed(connection, queue.take(limit, taken), now)
        mine = {one.device_id for one in found}
        if not mine:
            return []
        script = Script(connection)
        for one in queue.claims:
            if one.token == token:
                mine |= one.device_ids
            elif one not in held and not mine.isdisjoint(one.device_ids):
                let_go(script, one, mine)
        write_claim(script, Claim(token, now, now + hold, runs_of(mine)))
        script.run()
        return found


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
        [[now]], found = read(connection, NOW.of(), claim_under(token))
        mine = [one for one in claims_of(found) if one.until > now]
        return _claimed(connection, mine[0].device_ids, mine[0].at) if mine else []


_WORK = device_work.c
_CLAIMED = Reading(
    (
        *(_WORK.device_id, _WORK.wanted, _WORK.state_wanted, _WORK.state_sealed, _WORK.epoch),
        *(_WORK.sequence, _WORK.cause, _WORK.tries, _WORK.held, _WORK.dirty_at, _WORK.sealed),
    ),
    place("among"),
    _WORK.due_at.is_not(None),
)


def _claimed(connection: Connection, ids: Collection[int], at: datetime) -> list[Claimed]:
    """Devices claimed at a time."""
    [found] = read(connection, _CLAIMED.of(among=among("device_id", ids)))
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


_NOW_SEALED = Reading(
    (_WORK.device_id, _WORK.wanted, _WORK.epoch, _WORK.sequence, _WORK.sealed),
    place("among"),
    lock=True,
)
_FURTHER_PARTS = Reading(
    (emms.c.device_id, emms.c.message_id, emms.c.part),
    place("among"),
    emms.c.part > 1,
    emms.c.tombstone == 0,
)


@retried
def finish(engine: Engine, token: str, batch: Sequence[Finished]) -> set[int]:
    """Write what was sealed, for the devices whose claim is still ours; returns those."""
    ids = [done.claimed.device_id for done in batch]
    with writing(engine) as connection:
        held, (device_ids, *sealed), further, [[now]] = read(
            connection,
            claim_under(token, lock=True),
            _NOW_SEALED.of(among=among("device_id", ids, locks=True)),
            _FURTHER_PARTS.of(among=among("device_id", ids)),
            NOW.of(),
        )
        if not (claim := next(iter(claims_of(held)), None)):
            return set()
        rows = dict(zip(device_ids, zip(*sealed, strict=True), strict=True))
        ours = claim.device_ids
        # Also an EMMG of a release before `claims` has written nothing meanwhile.
        batch = [
            done
            for done in batch
            if done.claimed.device_id in ours
            and rows.get(done.claimed.device_id, ())[1:] == done.claimed.before
        ]
        written = {done.claimed.device_id for done in batch}
        script = Script(connection)
        if batch:
            _settle(script, batch, {one: rows[one][0] for one in written}, now)
        let_go(script, claim, ids)
        _write_airings(script, batch, now)
        script.run()
        if any(done.emms for done in batch):
            _write_emms(connection, batch, zip(*further, strict=True), now)
        return written


def _settle(
    script: Script, batch: Sequence[Finished], wanted: Mapping[int, int], now: datetime
) -> None:
    """Have the queue and the devices' rows say what is sealed.

    wanted: device → orders by now; where they are more than were claimed, it stays dirty.
    """
    ours = [done.claimed for done in batch]
    ids = [one.device_id for one in ours]
    dirty = {one.device_id: one.wanted for one in ours if wanted[one.device_id] > one.wanted}
    numbers = {one.device_id: one.sequence for one in ours if one.seals_state}
    held = {
        done.claimed.device_id: json.dumps(done.held, sort_keys=True)
        for done in batch
        if done.held != done.claimed.held
    }
    at, covered = literal(now), _each("wanted", dirty, ids)
    with_state = among("device_id", numbers)
    due_at = f"CASE WHEN device_id IN {listing(dirty)} THEN {at} END" if dirty else "NULL"
    becomes = {
        "sequence": _each("sequence", numbers, ids),
        "state_sealed": f"CASE WHEN {with_state} THEN {covered} ELSE state_sealed END",
        "state_sealed_at": f"CASE WHEN {with_state} THEN {at} ELSE state_sealed_at END",
        "dirty_at": due_at,
        "due_at": due_at,
        "sealed": covered,
        "tries": "0",
        **dict.fromkeys(("last_error", "claim_token", "claim_wanted"), "NULL"),
    }
    if held:  # dear to write, if only as it was
        becomes["held"] = _each("held", held, ids)
    sets = ", ".join(f"{name} = {value}" for name, value in becomes.items())
    script.add(f"UPDATE device_work SET {sets} WHERE {among('device_id', ids)}")  # noqa: S608 (literals)  # nosec B608
    for kind, column in ((Kind.MESSAGE, "sealed"), (Kind.WITHDRAWAL, "withdrawal_sealed")):
        texts = [sealed.message_id for done in batch for sealed in done.emms if sealed.kind is kind]
        if texts:
            script.add(f"UPDATE messages SET {column} = 1 WHERE message_id IN {listing(texts)}")  # noqa: S608 (numbers)  # nosec B608


def _each(column: str, values: Mapping[int, str | int], ids: Sequence[int]) -> str:
    """What a column of the devices becomes: these values, or where none is said what it was.

    Values are few, devices many.
    """
    alike: dict[str, list[int]] = {}
    for device_id, value in values.items():
        alike.setdefault(literal(value), []).append(device_id)
    other = column
    if alike and len(values) == len(ids):
        other = max(alike, key=lambda value: len(alike[value]))
        del alike[other]
    cases = "".join(f" WHEN device_id IN {listing(some)} THEN {to}" for to, some in alike.items())
    return f"CASE{cases} ELSE {other} END" if cases else other


def _write_airings(script: Script, batch: Sequence[Finished], now: datetime) -> None:
    """Have the orders that these EMMs cover wait for their first airing."""
    at = literal(now)
    rows = [
        f"({emm.device_id},{emm.message_id},{emm.covers},{at},NULL)"
        for done in batch
        for emm in done.emms
        if emm.cause == "order"
    ]
    columns = ("device_id", "message_id", "wanted", "sealed_at", "first_aired_at")
    script.put(airings, columns, rows, ["sealed_at"])


_KEY = ("device_id", "message_id", "part")
_SLOT = (
    *("parts", "kind", "epoch", "number", "cause", "covers", "tombstone", "section", "sealed_at"),
)
_OF_AN_ORDER = ("starts_at", "ends_at", "ordered_at")


def _write_emms(
    connection: Connection,
    batch: Sequence[Finished],
    further: Iterable[tuple[int, int, int]],
    now: datetime,
) -> None:
    """further: device, message and part of each part on air beyond a first."""
    at = literal(now)
    sealed = [emm for done in batch for emm in done.emms]
    laid_out: dict[bool, list[str]] = {True: [], False: []}
    for emm in sealed:
        laid_out[emm.cause == "order"] += _emm_rows(emm, at)
    parts = {(emm.device_id, emm.message_id): len(emm.sections) for emm in sealed}
    shrunk = {of[:2] for of in further if of[2] > parts.get(of[:2], of[2])}
    script = Script(connection)
    revision = next_revision(connection)
    for is_order, rows in laid_out.items():
        columns = (*_SLOT, *_OF_AN_ORDER, "revision") if is_order else (*_SLOT, "revision")
        # An order's EMM has not been aired; a re-key, of states only, keeps when its slot was.
        update = (*columns, "first_aired_at") if is_order else columns
        script.put(emms, (*_KEY, *columns), [f"({row},{revision})" for row in rows], update)
    _withdraw_parts(script, shrunk, revision)
    script.run()


def _withdraw_parts(script: Script, shrunk: Collection[tuple[int, int]], revision: int) -> None:
    """Parts that the new set no longer has leave the carousel."""
    states = [one for one in shrunk if not one[1]]
    texts = [one for one in shrunk if one[1]]
    for some in filter(None, (states, texts)):
        device_ids, message_ids = zip(*some, strict=True)
        script.add(
            f"UPDATE emms SET tombstone = 1, revision = {revision}"  # noqa: S608 (numbers)  # nosec B608
            f" WHERE {among('device_id', device_ids)} AND message_id IN {listing(message_ids)}"
            f" AND part > 1 AND revision < {revision} AND tombstone = 0"
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
