"""An upgrade in two steps: what runs before the roll-out, what after it, what is refused."""

from pathlib import Path
from zipfile import ZipFile

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect

from portcullis.store import migrate as subject
from portcullis.store import revisions as store_revisions
from portcullis.store.database import engine_for
from portcullis.store.migrate import SchemaError, migrate
from portcullis.store.revisions import revisions, schema_problem

MIGRATION = '''"""Step {number} ({phase} the roll-out)."""

from alembic import op
from sqlalchemy import Column, Integer

revision = "{number}"
down_revision = {down!r}


def upgrade():
    op.create_table("t{number}", Column("id", Integer, primary_key=True))
'''


def chain(home: Path, monkeypatch: pytest.MonkeyPatch, *phases: str) -> None:
    """Be a release with these migrations."""
    own = subject.alembic_config()
    versions = home / "versions"
    versions.mkdir(exist_ok=True)
    for stale in versions.glob("*.py"):
        stale.unlink()
    for number, phase in enumerate(phases, 1):
        down = str(number - 1) if number > 1 else None
        text = MIGRATION.format(number=number, phase=phase, down=down)
        (versions / f"{number}.py").write_text(text)
    own.set_main_option("version_locations", str(versions))
    monkeypatch.setattr(subject, "alembic_config", lambda: own)
    monkeypatch.setattr(store_revisions, "revisions", lambda: revisions.__wrapped__(versions))


def problem(engine: Engine) -> str | None:
    """What a service says of the database."""
    with engine.connect() as connection:
        return schema_problem(connection)


def test_the_first_step_leaves_what_follows_the_roll_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both releases can work between the steps; on a fresh database there is but one step."""
    engine = engine_for(f"sqlite:///{tmp_path}/a.db")
    chain(tmp_path, monkeypatch, "before")
    assert migrate(engine, before_roll_out=True)
    chain(tmp_path, monkeypatch, "before", "before", "after")
    assert problem(engine) == (
        "the database has the schema of an earlier release: portcullis migrate"
    )
    assert not migrate(engine, before_roll_out=True)
    assert inspect(engine).has_table("t2")
    assert not inspect(engine).has_table("t3")
    assert problem(engine) is None
    chain(tmp_path, monkeypatch, "before")  # the release before, on what it does not know
    assert problem(engine) is None
    with pytest.raises(SchemaError, match="of a later release: 2"):
        migrate(engine)
    chain(tmp_path, monkeypatch, "before", "before", "after")
    assert migrate(engine)
    assert inspect(engine).has_table("t3")
    fresh = engine_for(f"sqlite:///{tmp_path}/b.db")
    assert migrate(fresh, before_roll_out=True)


def test_an_upgrade_is_not_begun_upon_an_unfinished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain runs in order: what the last roll-out left behind comes first, by hand."""
    engine = engine_for(f"sqlite:///{tmp_path}/a.db")
    chain(tmp_path, monkeypatch, "before")
    migrate(engine)
    chain(tmp_path, monkeypatch, "before", "after", "before")
    with pytest.raises(SchemaError, match="migration 2 of an earlier upgrade is missing"):
        migrate(engine, before_roll_out=True)
    assert not inspect(engine).has_table("t2")


def test_the_migrations_since_the_last_release_can_be_run_in_two_steps() -> None:
    """Each says when it runs, and none that runs before the roll-out waits for one after it."""
    versions = "portcullis/store/migrations/versions/"
    with ZipFile(Path(__file__).parents[1] / "faults" / "previous.zip") as release:
        released = max(name for name in release.namelist() if name.startswith(versions))
    since = [one for one in revisions() if one.number > Path(released).name.partition("_")[0]]
    phases = [one.phase for one in since]
    assert phases == sorted(phases, reverse=True)  # "before" before "after"


def test_the_revisions_are_those_that_alembic_runs() -> None:
    """In this order, under these numbers: a file's name and what it says are one."""
    scripts = list(ScriptDirectory.from_config(subject.alembic_config()).walk_revisions())
    run = [script.revision for script in reversed(scripts)]
    assert [one.number for one in revisions()] == run
    said = [f"({one.phase} the roll-out" for one in revisions()]
    assert all(word in script.longdoc for word, script in zip(said, reversed(scripts), strict=True))
