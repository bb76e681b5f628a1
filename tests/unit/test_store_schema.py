"""Values at the border of the database."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.exc import StatementError

from portcullis.store.database import database_now, engine_for, writing
from portcullis.store.leases import lease_note, release_lease, take_lease
from portcullis.store.migrate import migrate
from portcullis.store.revisions import schema_problem
from portcullis.store.schema import devices, leases


def test_a_naive_time_is_refused(tmp_path: Path) -> None:
    """Only aware datetimes enter; they come back aware, in UTC, to the microsecond."""
    engine = engine_for(f"sqlite:///{tmp_path}/a.db")
    with engine.connect() as connection:
        assert schema_problem(connection) == "the database has no tables yet: portcullis migrate"
    migrate(engine)
    with engine.connect() as connection:
        assert schema_problem(connection) is None
    aware = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    with writing(engine) as connection:
        connection.execute(insert(devices).values(device_id=1, active=1, added_at=aware))
        assert connection.execute(select(devices.c.added_at)).scalar_one() == aware
        with pytest.raises(StatementError, match="naive"):
            connection.execute(
                insert(devices).values(device_id=2, active=1, added_at=aware.replace(tzinfo=None))
            )


def test_a_lease_has_one_holder_until_it_runs_out_or_is_let_go(tmp_path: Path) -> None:
    """A second asker is told who holds it; a note stays with the lease."""
    engine = engine_for(f"sqlite:///{tmp_path}/a.db")
    migrate(engine)
    minute, over = timedelta(minutes=1), timedelta(seconds=-1)

    def take(holder: str, ttl: timedelta, note: str | None = None) -> str:
        held = take_lease(engine, "scheduler", holder, ttl, note)
        assert held is not None
        assert held.left_s <= ttl.total_seconds() or held.holder != holder
        return held.holder

    assert take("a", minute, '{"at": 5}') == "a"
    assert take("b", minute) == "a"
    release_lease(engine, "scheduler", "b")
    assert take("b", minute) == "a"
    release_lease(engine, "scheduler", "a")
    assert take("b", over) == "b"
    assert take("a", minute) == "a"
    assert lease_note(engine, "scheduler") == '{"at": 5}'


def test_a_lease_lasts_no_longer_than_its_time_when_the_clock_steps_back(tmp_path: Path) -> None:
    """A holder that lives renews it; one that died does not keep it for as long as the step."""
    engine = engine_for(f"sqlite:///{tmp_path}/a.db")
    migrate(engine)
    ttl = timedelta(seconds=0.2)
    take_lease(engine, "scheduler", "dead", ttl)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    with writing(engine) as connection:
        connection.execute(update(leases).values(expires_at=ahead))
    held = take_lease(engine, "scheduler", "b", ttl)
    assert held is not None
    assert held.holder == "dead"
    assert held.left_s <= 0.2
    time.sleep(0.25)  # by the database's clock
    held = take_lease(engine, "scheduler", "b", ttl)
    assert held is not None
    assert held.holder == "b"


def test_the_database_clock_is_aware(tmp_path: Path) -> None:
    """What processes compare is the database's UTC."""
    with engine_for(f"sqlite:///{tmp_path}/a.db").connect() as connection:
        assert abs(database_now(connection) - datetime.now(UTC)) < timedelta(seconds=5)
