"""What the chains of a product call for, and which partitions the requests need."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from portcullis.runtime.config import ConfigError, ConfigSource
from portcullis.scheduler.config import SchedulerConfig
from portcullis.scheduler.leadtime import (
    MARKED_PER_S,
    airing,
    expected_end,
    lead_time,
    sealing_rate,
)
from portcullis.scheduler.rotation import (
    BeginRekey,
    CheckBoxes,
    MarkBoxes,
    PrepareChain,
    PrepareEpoch,
    Step,
    WatchAir,
    may_switch,
    next_steps,
)
from portcullis.store.partitions import first_id, month_after, plan
from portcullis.store.purge import opens_nothing
from portcullis.store.rekey import Progress, StreamCycles
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


BEGUN = Progress(
    product_id=7,
    seal_epoch=6,
    begun_at=START,
    boxes=1000,
    marked=0,
    marked_after=0,
    marked_at=None,
    sealed=0,
    skipped=0,
    sealed_after=0,
    sealed_at=None,
    revision=0,
    cycles_from={},
    cycles_aired=0.0,
    ends_at=None,
    switched_at=None,
)


def steps(chains: list[Chain], days: float, *rotations: Progress) -> list[Step]:
    """Decide so many days after the live epoch began."""
    by_epoch = {(one.product_id, one.seal_epoch): one for one in rotations}
    return next_steps(chains, by_epoch, START + timedelta(days=days), PERIOD, AHEAD)


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


def test_a_rotation_goes_from_marking_to_the_air() -> None:
    """Each step as soon as the one before is done, and none before."""
    prepared = replace(LIVE, seal_epoch=6, switch_at=START + PERIOD)
    assert steps([prepared], 31) == [BeginRekey(prepared)]
    assert steps([prepared], 31, BEGUN) == [MarkBoxes(prepared, BEGUN)]
    marked = replace(BEGUN, marked_at=START)
    assert steps([prepared], 31, marked) == [CheckBoxes(prepared, marked)]
    sealed = replace(marked, sealed_at=START)
    assert steps([prepared], 31, sealed) == [WatchAir(prepared, sealed)]


def test_the_switch_waits_for_its_time_and_for_the_air() -> None:
    """However late it gets: no content under a key that no box was given."""
    prepared = replace(LIVE, seal_epoch=6, switch_at=START + PERIOD)
    at, early = START + PERIOD, START + PERIOD - timedelta(seconds=1)
    assert may_switch(prepared, 3.0, 3, at)
    assert not may_switch(prepared, 3.0, 3, early)
    assert not may_switch(prepared, 2.99, 3, at + PERIOD)


def test_a_new_chain_that_waits_is_not_followed_by_another() -> None:
    """And the old chain, still on air, is left as it is."""
    new = Chain(7, 65, 128, None, 65, None, START + PERIOD)
    begun = replace(BEGUN, seal_epoch=65)
    assert steps([LIVE, new], 40, begun) == [MarkBoxes(new, begun)]


def test_the_lead_is_the_sealing_and_so_many_cycles_on_air() -> None:
    """A million boxes at 1 Mbit/s: a cycle of 25 min, three of them, and the sealing."""
    lead = lead_time(1_000_000, 1504.0, 3, 4000.0)
    assert (lead.sealing_s, lead.airing_s) == (250.0, 4512.0)
    assert lead.delta == timedelta(seconds=4762)


def test_the_sealing_rate_is_that_of_the_last_rotation_that_shows_it() -> None:
    """Until there is one, boxes are sealed no faster than they are marked."""
    first = replace(BEGUN, sealed=500, sealed_at=START + timedelta(seconds=5))
    last = replace(BEGUN, sealed=900, sealed_at=START + timedelta(seconds=3))
    assert sealing_rate([]) == sealing_rate([BEGUN]) == MARKED_PER_S
    assert sealing_rate([first, last, BEGUN]) == 300.0


def test_cycles_count_from_when_a_stream_had_read_what_was_sealed() -> None:
    """The stream that has aired least counts; one that lost its count begins anew."""
    sealed = replace(BEGUN, revision=40, sealed_at=START)
    a, b = StreamCycles("a", 10.0, 60.0, 40), StreamCycles("b", 5.0, 60.0, 39)
    assert airing(sealed, []).cycles == 0.0
    first = airing(sealed, [a, b])
    assert (first.cycles_from, first.cycles) == ({"a": 10.0}, 0.0)
    later = replace(sealed, cycles_from=first.cycles_from)
    second = airing(later, [replace(a, cycles=14.0), replace(b, revision=41)])
    assert (second.cycles_from, second.cycles) == ({"a": 10.0, "b": 5.0}, 0.0)
    last = replace(sealed, cycles_from=second.cycles_from)
    assert airing(last, [replace(a, cycles=14.0), replace(b, cycles=7.5)]).cycles == 2.5
    lost = airing(last, [replace(a, cycles=1.0), replace(b, cycles=7.5)])
    assert (lost.cycles_from, lost.cycles) == ({"a": 1.0, "b": 5.0}, 0.0)
    assert airing(last, [replace(b, cycles=7.5)]).cycles_from == {"b": 5.0}


def test_the_expected_end_is_what_is_left_or_the_time_set() -> None:
    """Whichever is later."""
    now = START + timedelta(days=1)

    def end(progress: Progress, switch_at: datetime) -> timedelta:
        at = expected_end(
            progress, now, switch_at=switch_at, cycles=3, cycle_s=60.0, sealed_per_s=10.0
        )
        return at - now

    half = replace(BEGUN, sealed=400, skipped=100)
    assert end(half, now) == timedelta(seconds=50 + 180)
    sealed = replace(half, sealed_at=now, cycles_aired=2.5)
    assert end(sealed, now) == timedelta(seconds=30)
    assert end(sealed, now + PERIOD) == PERIOD


@pytest.mark.parametrize(
    ("held", "blind"),
    [
        ({}, True),
        ({7: 4}, True),
        ({7: 5}, False),
        ({7: 6}, False),
        ({9: 5}, True),
        ({7: 4, 8: 9}, False),
    ],
)
def test_a_removed_box_opens_nothing_below_every_live_epoch(
    held: dict[int, int], *, blind: bool
) -> None:
    """Product 9 has no chain: its keys open nothing at all."""
    assert opens_nothing(held, {7: 5, 8: 1}) is blind


def test_months_are_split_off_before_they_begin() -> None:
    """Run twice, the plan asks for nothing more."""
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    december, january, february = (
        first_id(datetime(year, month, 1, tzinfo=UTC))
        for year, month in ((2026, 12), (2027, 1), (2027, 2))
    )
    assert plan({}, now) == (
        f"REORGANIZE PARTITION p_rest INTO (PARTITION p202611 VALUES LESS THAN ('{december}'),"
        f" PARTITION p202612 VALUES LESS THAN ('{january}'),"
        f" PARTITION p202701 VALUES LESS THAN ('{february}'),"
        " PARTITION p_rest VALUES LESS THAN (MAXVALUE))"
    )
    assert plan({"p202611": december, "p202612": january, "p202701": february}, now) is None


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
