"""What the chains of a product call for, and which partitions the requests need."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from portcullis.runtime.config import ConfigError, ConfigSource
from portcullis.scheduler.config import SchedulerConfig
from portcullis.scheduler.rotation import (
    MarkBoxes,
    PrepareChain,
    PrepareEpoch,
    Step,
    Switch,
    next_steps,
)
from portcullis.store.partitions import first_id, month_after, plan
from portcullis.store.purge import opens_nothing
from portcullis.store.rotation import Chain

START = datetime(2026, 1, 1, tzinfo=UTC)
PERIOD = timedelta(days=30)
AHEAD = timedelta(days=3)
LIVE = Chain(
    product_id=7,
    first_epoch=1,
    last_epoch=64,
    live_epoch=5,
    seal_epoch=5,
    live_since=START,
    switch_at=None,
)


def steps(chains: list[Chain], days: float, *marked: tuple[int, int]) -> list[Step]:
    """Decide so many days after the live epoch began."""
    return next_steps(chains, frozenset(marked), START + timedelta(days=days), PERIOD, AHEAD)


def test_nothing_is_due_until_the_time_to_prepare() -> None:
    """Three days before thirty."""
    assert steps([LIVE], 26.9) == []
    assert steps([LIVE], 27) == [PrepareEpoch(LIVE, START + PERIOD)]


def test_a_rotation_long_overdue_still_gives_boxes_their_time() -> None:
    """A scheduler that was away for a month does not switch at once."""
    assert steps([LIVE], 60) == [PrepareEpoch(LIVE, START + timedelta(days=63))]


def test_a_chain_that_is_used_up_is_followed_by_a_new_one() -> None:
    """The last epoch has no next one in its own chain."""
    last = replace(LIVE, live_epoch=64, seal_epoch=64)
    assert steps([last], 27) == [PrepareChain(last, START + PERIOD)]


def test_the_switch_waits_for_its_time_and_for_every_box_to_be_marked() -> None:
    """However late it gets: no content under a key that no box was given."""
    prepared = replace(LIVE, seal_epoch=6, switch_at=START + PERIOD)
    assert steps([prepared], 31) == [MarkBoxes(prepared)]
    assert steps([prepared], 29, (7, 6)) == []
    assert steps([prepared], 30, (7, 6)) == [Switch(prepared)]


def test_a_new_chain_that_waits_is_not_followed_by_another() -> None:
    """And the old chain, still on air, is left as it is."""
    new = Chain(7, 65, 128, None, 65, None, START + PERIOD)
    assert steps([LIVE, new], 40) == [MarkBoxes(new)]
    assert steps([LIVE, new], 29, (7, 65)) == []
    assert steps([LIVE, new], 40, (7, 65)) == [Switch(new)]


@pytest.mark.parametrize(
    ("held", "blind"),
    [
        ({}, True),
        ({"7": 4}, True),
        ({"7": 5}, False),
        ({"7": 6}, False),
        ({"9": 5}, True),
        ({"7": 4, "8": 9}, False),
    ],
)
def test_a_removed_box_opens_nothing_below_every_live_epoch(
    held: dict[str, int], *, blind: bool
) -> None:
    """Product 9 has no chain: its keys open nothing at all."""
    assert opens_nothing(held, {7: 5, 8: 1}) is blind


def test_months_are_split_off_before_they_begin_and_dropped_when_wholly_old() -> None:
    """Run twice, the plan asks for nothing more."""
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    december, january, february = (
        first_id(datetime(year, month, 1, tzinfo=UTC))
        for year, month in ((2026, 12), (2027, 1), (2027, 2))
    )
    long_ago = datetime(2024, 1, 1, tzinfo=UTC)
    (action,) = plan({}, now, long_ago)
    assert action == (
        f"REORGANIZE PARTITION p_rest INTO (PARTITION p202611 VALUES LESS THAN ('{december}'),"
        f" PARTITION p202612 VALUES LESS THAN ('{january}'),"
        f" PARTITION p202701 VALUES LESS THAN ('{february}'),"
        " PARTITION p_rest VALUES LESS THAN (MAXVALUE))"
    )
    partitions = {"p202611": december, "p202612": january, "p202701": february}
    assert plan(partitions, now, long_ago) == []
    later = plan(partitions, now, datetime(2026, 12, 1, tzinfo=UTC))
    assert later == ["DROP PARTITION p202611"]
    assert plan(partitions, now, datetime(2026, 11, 30, tzinfo=UTC)) == []


def test_ids_of_one_month_lie_between_its_bounds() -> None:
    """A UUIDv7 begins with its milliseconds, whatever follows."""
    moment = datetime(2026, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)
    highest = f"{int(moment.timestamp() * 1000):012x}" + "f" * 20
    assert highest < first_id(month_after(moment))
    assert month_after(moment) == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "values", [{"chain_epochs": 129}, {"chain_epochs": 1}, {"prepare_ahead": "30d"}]
)
def test_a_timetable_that_cannot_work_is_refused(values: dict[str, object]) -> None:
    """With the key's name."""
    with pytest.raises(ConfigError, match=f"scheduler.{next(iter(values))}"):
        SchedulerConfig.of(ConfigSource(None, "", {"scheduler": values}))
