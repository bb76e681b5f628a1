"""Devices that could not be sealed: given back, tried again, given up, tried again by hand."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, Row, RowMapping, and_, case, false, select, update

from portcullis.store.bulk import Script
from portcullis.store.claims import claim_under, claims_of, let_go
from portcullis.store.database import database_now, retried, writing
from portcullis.store.readings import NOW, read
from portcullis.store.schema import device_work

MAX_TRIES = 8
"""Then a device has failed: nothing is done for it until its next order, or a retry by hand."""


def give_back(
    engine: Engine, token: str, device_ids: Collection[int], error: str, again_after: timedelta
) -> None:
    """Let go of devices that could not be sealed for no fault of theirs; no try is counted."""
    _let_go(engine, token, device_ids, error, again_after, counts=False)


def give_up_or_retry(
    engine: Engine, token: str, device_ids: Collection[int], error: str, again_after: timedelta
) -> None:
    """Let go of devices that were refused: tried again, or failed after MAX_TRIES."""
    _let_go(engine, token, device_ids, error, again_after, counts=True)


@retried
def _let_go(
    engine: Engine,
    token: str,
    device_ids: Collection[int],
    error: str,
    again_after: timedelta,
    *,
    counts: bool,
) -> None:
    work = device_work.c
    with writing(engine) as connection:
        found, [[now]] = read(connection, claim_under(token, lock=True), NOW.of())
        if not (mine := claims_of(found)):
            return
        ours = sorted(mine[0].device_ids.intersection(device_ids))
        tries = work.tries + 1 if counts else work.tries
        failed = tries >= MAX_TRIES if counts else false()
        connection.execute(
            update(device_work)
            .where(work.device_id.in_(ours))
            # MySQL assigns from left to right: what others are computed from goes last.
            .ordered_values(
                (work.failed_at, case((failed, now), else_=None)),
                (work.due_at, case((failed, None), else_=now + again_after)),
                (work.last_error, error[:500]),
                (work.tries, tries),
                (work.claim_token, None),
                (work.claim_wanted, None),
            )
        )
        script = Script(connection)
        let_go(script, mine[0], ours)
        script.run()


def failed_devices(engine: Engine) -> Sequence[RowMapping]:
    """Every device given up: device_id, failed_at, tries, last_error; the latest first."""
    work = device_work.c
    with engine.connect() as connection:
        return (
            connection.execute(
                select(work.device_id, work.failed_at, work.tries, work.last_error)
                .where(work.failed_at.is_not(None))
                .order_by(work.failed_at.desc(), work.device_id)
            )
            .mappings()
            .all()
        )


def work_of(engine: Engine, device_id: int) -> Row[Any] | None:
    """How the sealing of a device's orders stands: tries, due_at, failed_at, last_error."""
    work = device_work.c
    with engine.connect() as connection:
        return connection.execute(
            select(work.tries, work.due_at, work.failed_at, work.last_error).where(
                work.device_id == device_id
            )
        ).one_or_none()


@retried
def retry_failed(engine: Engine, device_ids: Collection[int]) -> set[int]:
    """Have devices that were given up tried anew; returns which of them were."""
    work = device_work.c
    given_up = and_(work.device_id.in_(device_ids), work.failed_at.is_not(None))
    with writing(engine) as connection:
        now = database_now(connection)
        found = set(
            connection.execute(
                select(work.device_id).where(given_up).order_by(work.device_id).with_for_update()
            ).scalars()
        )
        connection.execute(
            update(device_work)
            .where(work.device_id.in_(found), work.failed_at.is_not(None))
            .values(failed_at=None, due_at=now, tries=0)
        )
        return found
