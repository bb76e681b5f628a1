"""`portcullis db …`: the database as an operator must have it."""

import click
from sqlalchemy.exc import DBAPIError

from portcullis.cli.context import Context, common_options
from portcullis.runtime.config import DatabaseConfig
from portcullis.runtime.errors import PortcullisError
from portcullis.store.database import engine_for
from portcullis.store.inspection import inspect_servers
from portcullis.store.migrate import schema_problem
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


def _schema_problem(url: str) -> str | None:
    engine = engine_for(url, pool_size=1)
    try:
        return schema_problem(engine)
    except DBAPIError as error:
        return f"not known: {error.orig}"
    finally:
        engine.dispose()
