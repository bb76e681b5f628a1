"""Which migrations this release has, and which of them a database has.

Alembic runs them (store/migrate.py). It is not loaded here: every service asks, every second.
"""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, String, column, inspect, select, table
from sqlalchemy.exc import DBAPIError

VERSIONS = Path(__file__).parent / "migrations" / "versions"

_PHASE = re.compile(r"\((before|after) the roll-out\b")
_HELD = table("alembic_version", column("version_num", String))


class Revision(NamedTuple):
    """One migration. `phase`: "before" or "after" the roll-out, as its docstring says."""

    number: str
    phase: str


@cache
def revisions(folder: Path = VERSIONS) -> tuple[Revision, ...]:
    """The migrations of this release, oldest first; each is in a file named NUMBER_…py."""
    return tuple(map(_read, sorted(folder.glob("[0-9]*.py"))))


def _read(path: Path) -> Revision:
    match = _PHASE.search(path.read_text(encoding="utf-8"))
    assert match is not None, path  # noqa: S101 (tests hold every migration to it)
    return Revision(path.stem.partition("_")[0], match[1])


def pending(held: str | None) -> tuple[Revision, ...] | None:
    """The migrations beyond `held`, next one first; None: it is of a later release."""
    known = revisions()
    if held is None:
        return known
    numbers = [revision.number for revision in known]
    return known[numbers.index(held) + 1 :] if held in numbers else None


def held_revision(connection: Connection) -> str | None:
    """The number of the last migration that a database has had; None before the first."""
    try:
        return connection.execute(select(_HELD.c.version_num)).scalar()
    except DBAPIError:
        if inspect(connection).has_table(_HELD.name):
            raise
        return None


def schema_problem(connection: Connection) -> str | None:
    """Why this release cannot work on the database's schema; None if it can.

    It can on its own, also before the migrations that follow the roll-out, and on that of the
    next release, whose migrations before the roll-out leave everything it needs.
    """
    held = held_revision(connection)
    if held is None:
        return "the database has no tables yet: portcullis migrate"
    if all(revision.phase == "after" for revision in pending(held) or ()):
        return None
    return "the database has the schema of an earlier release: portcullis migrate"
