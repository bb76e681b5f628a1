"""Leases: who leads, who airs. The database's clock alone says when one has run out."""

from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Engine, event, select, update
from sqlalchemy.exc import IntegrityError

from portcullis.runtime.errors import PortcullisError
from portcullis.store.database import database_now, retried, writing
from portcullis.store.schema import leases


class LeaseLostError(PortcullisError):
    """Another may hold the lease by now: nothing was committed."""


class Held(NamedTuple):
    """Who holds a lease, and how long yet if it is not renewed."""

    holder: str
    left_s: float


@retried
def take_lease(
    engine: Engine, name: str, holder: str, ttl: timedelta, note: str | None = None
) -> Held | None:
    """Take or renew a lease; `note` replaces its note. Returns who holds it now.

    `ttl` is the same for all who ask for this lease.

    None: two asked for a new lease at once and neither can tell yet; ask again.
    """
    ours = Held(holder, ttl.total_seconds())
    try:
        with writing(engine) as connection:
            now = database_now(connection)
            row = connection.execute(
                select(leases).where(leases.c.name == name).with_for_update()
            ).one_or_none()
            if row is None:
                connection.execute(
                    leases.insert().values(
                        name=name, holder=holder, expires_at=now + ttl, note=note or "{}"
                    )
                )
                return ours
            if row.holder != holder and row.expires_at > now:
                if row.expires_at > now + ttl:
                    # The clock has stepped back since: nobody may hold it for longer than that.
                    connection.execute(
                        update(leases).where(leases.c.name == name).values(expires_at=now + ttl)
                    )
                    return Held(row.holder, ttl.total_seconds())
                return Held(row.holder, (row.expires_at - now).total_seconds())
            values = {"holder": holder, "expires_at": now + ttl}
            if note is not None:
                values["note"] = note
            connection.execute(update(leases).where(leases.c.name == name).values(values))
            return ours
    except IntegrityError:
        return None


@retried
def release_lease(engine: Engine, name: str, holder: str) -> None:
    """Let go of a lease, if it is still ours, so that another need not wait it out."""
    with writing(engine) as connection:
        connection.execute(
            update(leases)
            .where(leases.c.name == name, leases.c.holder == holder)
            .values(expires_at=database_now(connection))
        )


def fenced(engine: Engine, name: str, holder: str) -> Engine:
    """An engine whose transactions are committed only while `holder` has the lease.

    The lease's row is locked from the check to the commit, so that nobody takes it in between: a
    process that hung, however long, raises LeaseLostError instead. What commits by itself (DDL)
    is not held back.
    """
    fenced_engine = engine.execution_options()

    def check(connection: Connection) -> None:
        row = connection.execute(
            select(leases.c.holder, leases.c.expires_at)
            .where(leases.c.name == name)
            .with_for_update(read=True)
        ).one_or_none()
        if row is None or row.holder != holder or row.expires_at <= database_now(connection):
            raise LeaseLostError(f"the lease {name} is no longer ours: nothing was committed")

    event.listen(fenced_engine, "commit", check)
    return fenced_engine


def lease_note(engine: Engine, name: str) -> str:
    """What the last holder noted: JSON, `{}` where there is none."""
    with engine.connect() as connection:
        note = connection.execute(
            select(leases.c.note).where(leases.c.name == name)
        ).scalar_one_or_none()
        return note or "{}"
