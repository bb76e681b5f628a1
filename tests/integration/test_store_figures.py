"""What monitoring reads of the work queue, on both kinds of database."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from portcullis.store.database import database_now, engine_for, writing
from portcullis.store.figures import queue_figures
from portcullis.store.orders import Accepted, NewRequest, apply_requests
from portcullis.store.schema import device_work, devices


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine of the test's own."""
    engine = engine_for(database_url)
    yield engine
    engine.dispose()


def test_an_empty_queue_has_no_age(engine: Engine) -> None:
    figures = queue_figures(engine)
    assert figures.oldest_order_s == 0
    assert figures.waiting == {"order": 0, "rekey": 0, "reseal": 0}
    assert figures.failed == 0


def test_only_orders_have_an_age_and_only_what_is_due_is_waiting(engine: Engine) -> None:
    """A re-key may wait for hours, a failed or a clean device waits for nobody."""
    with writing(engine) as connection:
        now = database_now(connection)
        for device_id, cause, priority, waited_s, failed in (
            (1, "order", 0, 40, False),
            (2, "order", 0, 7, False),
            (3, "rekey", 1, 900, False),
            (4, "reseal", 2, 2000, False),
            (5, "order", 0, 5000, True),
            (6, "order", 0, None, False),
        ):
            since = None if waited_s is None else now - timedelta(seconds=waited_s)
            connection.execute(
                device_work.insert().values(
                    device_id=device_id,
                    wanted=1,
                    state_wanted=1,
                    cause=cause,
                    priority=priority,
                    dirty_at=since,
                    due_at=None if failed else since,
                    failed_at=now if failed else None,
                )
            )
    figures = queue_figures(engine)
    assert 40 <= figures.oldest_order_s < 100
    assert figures.waiting == {"order": 2, "rekey": 1, "reseal": 1}
    assert figures.failed == 1


def test_an_order_has_not_waited_since_a_rekey_before_it(engine: Engine) -> None:
    """Its age counts from its own acceptance."""
    with writing(engine) as connection:
        now = database_now(connection)
        long_ago = now - timedelta(seconds=900)
        connection.execute(devices.insert().values(device_id=3, active=1, added_at=now))
        connection.execute(
            device_work.insert().values(
                device_id=3,
                wanted=1,
                state_wanted=1,
                cause="rekey",
                priority=1,
                dirty_at=long_ago,
                due_at=long_ago,
            )
        )
    (result,) = apply_requests(
        engine, [NewRequest("sms", "t1", "removedevice", {}, device_id=3, body_hash=bytes(32))]
    )
    assert isinstance(result, Accepted)
    assert queue_figures(engine).oldest_order_s < 100
    assert queue_figures(engine).waiting == {"order": 1, "rekey": 0, "reseal": 0}
