"""The work of an EMMG: claim dirty devices, read what they are to be told, write it sealed.

The claim protocol in three steps, none of which holds a lock across an RPC:
`claim` takes devices and their numbers in a short transaction; `read_orders`
reads what was ordered; `finish` writes only where the claim is still ours.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    Connection,
    Engine,
    RowMapping,
    bindparam,
    case,
    or_,
    select,
    tuple_,
    update,
)

from portcullis.emm import Kind
from portcullis.store.database import database_now, greatest, retried, upsert, writing
from portcullis.store.feed_writer import next_revision
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


@dataclass(frozen=True)
class Claimed:
    """A device that is ours until the claim's deadline. `wanted`: the orders it must cover."""

    device_id: int
    wanted: int
    seals_state: bool
    epoch: int
    sequence: int
    cause: str
    tries: int
    held: Mapping[int, int]
    dirty_at: datetime | None = None


def claim(engine: Engine, token: str, limit: int, hold: timedelta) -> list[Claimed]:
    """Claim up to `limit` due devices, fresh orders first, and take their state numbers.

    The number is max(held + 1, Unix seconds by the database): a head-end restored from a
    backup is ahead of all it ever aired.
    """
    work = device_work.c
    with writing(engine) as connection:
        now = database_now(connection)
        ids: list[int] = []
        for priority in PRIORITIES:
            due = (
                select(work.device_id)
                .where(
                    work.priority == priority,
                    # Later than anything is ever put off: the clock has stepped back since.
                    or_(work.due_at <= now, work.due_at > now + hold + _LONGEST_WAIT),
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
        connection.execute(
            update(device_work)
            .where(work.device_id.in_(ids))
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
        rows = connection.execute(select(device_work).where(work.device_id.in_(ids)))
        return [_claimed(row) for row in rows.mappings()]


def claimed(engine: Engine, token: str) -> list[Claimed]:
    """What is claimed under a token: after a fault that hid whether the claim was committed."""
    with engine.connect() as connection:
        rows = connection.execute(select(device_work).where(device_work.c.claim_token == token))
        return [_claimed(row) for row in rows.mappings()]


def _claimed(row: RowMapping) -> Claimed:
    return Claimed(
        device_id=row["device_id"],
        wanted=row["wanted"],
        seals_state=row["state_wanted"] > row["state_sealed"],
        epoch=row["epoch"],
        sequence=row["sequence"],
        cause=row["cause"],
        tries=row["tries"],
        held={int(product): epoch for product, epoch in json.loads(row["held"]).items()},
        dirty_at=row["dirty_at"],
    )


@dataclass(frozen=True)
class SealedEmm:
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


@dataclass(frozen=True)
class Finished:
    """One claimed device with all that was sealed for it; `held` as device_work keeps it."""

    claimed: Claimed
    emms: Sequence[SealedEmm]
    held: Mapping[int, int]


@retried
def finish(engine: Engine, token: str, batch: Sequence[Finished]) -> set[int]:
    """Write what was sealed, for the devices whose claim is still ours; returns those."""
    work = device_work.c
    with writing(engine) as connection:
        ours = set(
            connection.execute(
                select(work.device_id)
                .where(work.claim_token == token)
                .order_by(work.device_id)
                .with_for_update()
            ).scalars()
        )
        mine = [done for done in batch if done.claimed.device_id in ours]
        if not mine:
            return set()
        now = database_now(connection)
        _settle(connection, mine, now)
        rows = [row for done in mine for sealed in done.emms for row in _emm_rows(sealed, now)]
        if rows:
            waited_for = [
                {
                    "device_id": sealed.device_id,
                    "message_id": sealed.message_id,
                    "wanted": sealed.covers,
                    "sealed_at": now,
                    "first_aired_at": None,
                }
                for done in mine
                for sealed in done.emms
                if sealed.cause == "order"
            ]
            upsert(connection, airings, waited_for, ["sealed_at"])
            _write_emms(connection, rows)
        return {done.claimed.device_id for done in mine}


def _settle(connection: Connection, mine: Sequence[Finished], now: datetime) -> None:
    work = device_work.c
    states = [done for done in mine if done.claimed.seals_state]
    if states:
        connection.execute(
            update(device_work)
            .where(work.device_id.in_([done.claimed.device_id for done in states]))
            .values(state_sealed=work.claim_wanted, state_sealed_at=now)
        )
        changed = [done for done in states if done.held != done.claimed.held]
        if changed:
            connection.execute(
                update(device_work).where(work.device_id == bindparam("b_device")),
                [
                    {
                        "b_device": done.claimed.device_id,
                        "held": json.dumps(done.held, sort_keys=True),
                    }
                    for done in changed
                ],
            )
    still_dirty = work.wanted > work.claim_wanted
    # MySQL assigns from left to right: claim_wanted and claim_token go last.
    connection.execute(
        update(device_work)
        .where(work.device_id.in_([done.claimed.device_id for done in mine]))
        .ordered_values(
            (work.dirty_at, case((still_dirty, now), else_=None)),
            (work.due_at, case((still_dirty, now), else_=None)),
            (work.sealed, work.claim_wanted),
            (work.tries, 0),
            (work.last_error, None),
            (work.claim_token, None),
            (work.claim_wanted, None),
        )
    )
    for kind, column in ((Kind.MESSAGE, "sealed"), (Kind.WITHDRAWAL, "withdrawal_sealed")):
        done_ids = [
            sealed.message_id for done in mine for sealed in done.emms if sealed.kind is kind
        ]
        if done_ids:
            connection.execute(
                update(messages).where(messages.c.message_id.in_(done_ids)).values({column: 1})
            )


def _emm_rows(sealed: SealedEmm, now: datetime) -> list[dict[str, object]]:
    return [
        {
            "device_id": sealed.device_id,
            "message_id": sealed.message_id,
            "part": part,
            "parts": len(sealed.sections),
            "kind": int(sealed.kind),
            "epoch": sealed.epoch,
            "number": sealed.number,
            "cause": sealed.cause,
            "covers": sealed.covers,
            "tombstone": 0,
            "section": section,
            "starts_at": sealed.starts_at,
            "ends_at": sealed.ends_at,
            "sealed_at": now,
            "ordered_at": sealed.ordered_at,
        }
        for part, section in enumerate(sealed.sections, start=1)
    ]


_SLOT = [
    "parts",
    "kind",
    "epoch",
    "number",
    "cause",
    "covers",
    "revision",
    "tombstone",
    "section",
    "starts_at",
    "ends_at",
    "sealed_at",
]


def _write_emms(connection: Connection, rows: list[dict[str, object]]) -> None:
    revision = next_revision(connection)
    for row in rows:
        row["revision"] = revision
    slot = tuple_(emms.c.device_id, emms.c.message_id)
    for cause_is_order in (True, False):
        chosen = [row for row in rows if (row["cause"] == "order") == cause_is_order]
        if cause_is_order:
            # An order's EMM has not been aired; a re-key keeps when its slot first was.
            chosen = [row | {"first_aired_at": None} for row in chosen]
            upsert(connection, emms, chosen, [*_SLOT, "first_aired_at", "ordered_at"])
        else:
            upsert(connection, emms, chosen, _SLOT)
    # Parts that the new set no longer has leave the carousel.
    connection.execute(
        update(emms)
        .where(
            slot.in_({(row["device_id"], row["message_id"]) for row in rows}),
            emms.c.part > 1,
            emms.c.revision < revision,
            emms.c.tombstone == 0,
        )
        .values(tombstone=1, revision=revision)
    )
