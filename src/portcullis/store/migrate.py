"""Bring a database to the schema of this release, also while the release before it runs.

A migration says in its docstring when it is to run. One of "before the roll-out" leaves what the
release before needs as it was; one of "after the roll-out" takes away what only that one needed.
"""

from collections.abc import Callable, Sequence

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine

from portcullis.runtime.errors import PortcullisError
from portcullis.store.database import writing
from portcullis.store.revisions import VERSIONS, Revision, held_revision, pending


class SchemaError(PortcullisError):
    """The database's schema is not one that this release can bring to its own."""


def alembic_config() -> Config:
    """Alembic's configuration, without a file of its own."""
    config = Config()
    config.set_main_option("script_location", str(VERSIONS.parent))
    config.set_main_option("path_separator", "os")
    return config


def migrate(
    engine: Engine,
    *,
    before_roll_out: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> bool:
    """Run the migrations that the database does not have yet; True if none is left.

    before_roll_out: only those that the release before can live with.
    progress: told of each one that is done.

    Raises SchemaError: it is of a later release, or an earlier upgrade was not finished.
    """
    config = alembic_config()
    with writing(engine) as connection:
        held = held_revision(connection)
        waiting = pending(held)
        if waiting is None:
            raise SchemaError(f"the database has the schema of a later release: {held}")
        target = "head"
        if before_roll_out and held is not None:
            target = _last_before_roll_out(held, waiting)
        config.attributes["connection"] = connection
        config.attributes["progress"] = progress
        command.upgrade(config, target)
        return not pending(held_revision(connection))


def _last_before_roll_out(held: str, waiting: Sequence[Revision]) -> str:
    target = held
    for place, revision in enumerate(waiting):
        if revision.phase == "after":
            if any(later.phase == "before" for later in waiting[place:]):
                raise SchemaError(
                    f"migration {revision.number} of an earlier upgrade is missing:"
                    " finish that with `portcullis migrate` first"
                )
            break
        target = revision.number
    return target
