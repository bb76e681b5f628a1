"""`portcullis db …`: the database as an operator must have it."""

import csv
from datetime import UTC, datetime
from typing import TextIO

import click
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from portcullis.cli.context import Context, Instant, common_options
from portcullis.cli.progress import progress_bar
from portcullis.runtime.config import DatabaseConfig
from portcullis.runtime.errors import PortcullisError
from portcullis.scheduler.config import SchedulerConfig
from portcullis.store.database import engine_for
from portcullis.store.inspection import inspect_servers
from portcullis.store.recovery import (
    declare_restored,
    declare_resynchronised,
    missing_transactions,
    open_recovery,
)
from portcullis.store.revisions import schema_problem
from portcullis.store.verdicts import judge


@click.group()
def db() -> None:
    """The database: whether it is fit for production, and what follows a restore."""


class UnfitDatabaseError(PortcullisError):
    """The database is not what production needs."""


@db.command()
@common_options
@click.pass_obj
def check(context: Context) -> None:
    """Tell whether every server is encrypted, loses nothing, speaks TLS, has the right schema.

    A line a point; exit 1 if one is not as it must be. Asks as `portcullis_operator`.
    """
    url = context.source().section("database", DatabaseConfig).full_url()
    if url.startswith("sqlite"):
        raise UnfitDatabaseError("SQLite is for one machine and for trying things out")
    verdicts = judge(inspect_servers(url), _schema_problem(url))
    rows = [
        {
            "server": verdict.server,
            "point": verdict.point,
            "good": verdict.is_good if context.as_json else "yes" if verdict.is_good else "NO",
            "found": verdict.found,
        }
        for verdict in verdicts
    ]
    context.show_rows(rows, ("server", "point", "good", "found"))
    bad = [verdict for verdict in verdicts if not verdict.is_good]
    if bad:
        raise UnfitDatabaseError(f"{len(bad)} of {len(verdicts)} points are not as they must be")


@db.command()
@click.option(
    "--backup-taken-at",
    "backup_at",
    type=Instant(),
    required=True,
    help="When the state that was restored was current.",
)
@common_options
@click.pass_obj
def restored(context: Context, backup_at: datetime) -> None:
    """Say that the database was restored, before any service is started.

    Until `db resynchronised` only what the SMS orders anew is sealed, and `/readyz` says
    degraded: what was ordered, or revoked, since the backup is not known here. Runs as
    `portcullis_migrate`. docs/operations/backup-restore.md has the whole procedure.
    """
    with context.database() as engine:
        if engine.dialect.name == "sqlite":
            raise UnfitDatabaseError("SQLite is for trying things out: set it up anew")
        if backup_at > datetime.now(UTC):
            raise click.BadParameter(f"{backup_at.isoformat()} is yet to come")
        declare_restored(engine, backup_at)
        context.show({"restored": str(open_recovery(engine))})


@db.command()
@click.option(
    "--transactions",
    "ledger",
    type=click.File(encoding="utf-8"),
    help="What the SMS had accepted since the backup: CSV client_id,transaction_id.",
)
@click.option("--waive", help="Why nothing has to be repeated, or can be; it is kept.")
@common_options
@click.pass_obj
def resynchronised(context: Context, ledger: TextIO | None, waive: str | None) -> None:
    """Say that the SMS has repeated its orders since the backup; held work goes on.

    With --transactions each is looked up, and one that is missing is named (exit 1); with
    --waive you vouch for it. Runs as `portcullis_migrate`.
    """
    if (ledger is None) == (not waive):
        raise click.UsageError("give --transactions or --waive")
    ahead = SchedulerConfig.of(context.source()).prepare_ahead.delta
    with context.database() as engine:
        recovery = open_recovery(engine)
        if recovery is None:
            raise NotResynchronisedError("no restore is waiting for the SMS")
        if not recovery.has_chains:
            raise NotResynchronisedError(
                "products have no new keys yet: the scheduler makes them, start it"
            )
        evidence = f"waived: {waive}" if ledger is None else _look_up(context, engine, ledger)
        declare_resynchronised(engine, evidence, ahead)
    context.show({"resynchronised": evidence})


class NotResynchronisedError(PortcullisError):
    """What was ordered since the backup is not all there."""


def _look_up(context: Context, engine: Engine, ledger: TextIO) -> str:
    """Look up every transaction of the SMS's ledger; raises NotResynchronisedError."""
    accepted = set()
    for number, row in enumerate(csv.reader(ledger), start=1):
        if row == ["client_id", "transaction_id"]:
            continue
        if len(row) != 2:  # noqa: PLR2004 (the two columns)
            raise click.BadParameter(f"line {number}: expected client_id,transaction_id")
        accepted.add((row[0], row[1]))
    if not accepted:
        raise click.BadParameter("it has no transaction: use --waive if there was none")
    with progress_bar(context, "transactions", len(accepted)) as advance:
        missing = missing_transactions(engine, accepted, advance)
    if missing:
        context.show_rows(
            [{"client_id": client, "missing": transaction} for client, transaction in missing],
            ("client_id", "missing"),
        )
        raise NotResynchronisedError(f"{len(missing)} of {len(accepted)} transactions are missing")
    return f"{len(accepted)} transactions are there"


def _schema_problem(url: str) -> str | None:
    engine = engine_for(url, pool_size=1)
    try:
        with engine.connect() as connection:
            return schema_problem(connection)
    except DBAPIError as error:
        return f"not known: {error.orig}"
    finally:
        engine.dispose()
