"""Bring a database to the schema of this release, also while the release before it runs.

A migration says in its docstring when it is to run. One of "before the roll-out" leaves what the
release before needs as it was; one of "after the roll-out" takes away what only that one needed.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Engine

from portcullis.runtime.errors import PortcullisError
from portcullis.store.database import writing

_PHASE = re.compile(r"\((before|after) the roll-out\b")


class SchemaError(PortcullisError):
    """The database's schema is not one that this release can bring to its own."""


def alembic_config() -> Config:
    """Alembic's configuration, without a file of its own."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
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
    scripts = ScriptDirectory.from_config(config)
    with writing(engine) as connection:
        held = MigrationContext.configure(connection).get_current_revision()
        if not _is_known(scripts, held):
            raise SchemaError(f"the database has the schema of a later release: {held}")
        target = "head"
        if before_roll_out and held is not None:
            target = _last_before_roll_out(scripts, held)
        config.attributes["connection"] = connection
        config.attributes["progress"] = progress
        command.upgrade(config, target)
        reached = MigrationContext.configure(connection).get_current_revision()
        return reached == scripts.get_current_head()


def schema_problem(engine: Engine) -> str | None:
    """Why this release cannot work on the database's schema; None if it can.

    It can on its own, also before the migrations that follow the roll-out, and on that of the
    next release, whose migrations before the roll-out leave everything it needs.
    """
    scripts = _scripts()
    with engine.connect() as connection:
        held = MigrationContext.configure(connection).get_current_revision()
    if held is None:
        return "the database has no tables yet: portcullis migrate"
    if not _is_known(scripts, held):
        return None
    if all(_phase(script) == "after" for script in _pending(scripts, held)):
        return None
    return "the database has the schema of an earlier release: portcullis migrate"


@cache
def _scripts() -> ScriptDirectory:
    """The migrations of this release: read once, since health checks ask every second."""
    return ScriptDirectory.from_config(alembic_config())


def _is_known(scripts: ScriptDirectory, held: str | None) -> bool:
    return held is None or held in {script.revision for script in scripts.walk_revisions()}


def _pending(scripts: ScriptDirectory, held: str) -> Iterator[Script]:
    """The migrations beyond `held`, next one first."""
    return reversed(list(scripts.iterate_revisions("head", held)))


def _last_before_roll_out(scripts: ScriptDirectory, held: str) -> str:
    pending = list(_pending(scripts, held))
    target = held
    for place, script in enumerate(pending):
        if _phase(script) == "after":
            if any(_phase(later) == "before" for later in pending[place:]):
                raise SchemaError(
                    f"migration {script.revision} of an earlier upgrade is missing:"
                    " finish that with `portcullis migrate` first"
                )
            break
        target = script.revision
    return target


def _phase(script: Script) -> str:
    match = _PHASE.search(script.longdoc)
    assert match is not None, script.path  # noqa: S101 (tests hold every migration to it)
    return match[1]
