"""By when a box is told next, from the classes that its cycler has noted."""

from datetime import UTC, datetime, timedelta

import pytest

from portcullis.store.streams import ClassFigures, StreamFigures, next_airing

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def stream(*, stretch: float = 1.0, has_classes: bool = True) -> StreamFigures:
    """The default classes: 5 airings every 2 s, 20 every 30 s, then every 30 min."""
    classes = [
        ClassFigures("fresh", 2.0, 5, 1, 1.0),
        ClassFigures("recent", 30.0, 20, 1, stretch),
        ClassFigures("steady", 1800.0, None, 1, stretch),
    ]
    return StreamFigures(
        *("0xFFF00001:1", True, "host:1", NOW, "mux:1", "stream_open", 1000, 1000, 1800.0, 0),
        classes if has_classes else [],
        [],
    )


@pytest.mark.parametrize(
    ("age_s", "airing_class", "in_s"),
    [
        (0.0, "fresh", 2.0),
        (7.5, "fresh", 0.5),  # the fifth airing, at 8 s
        (8.0, "recent", 30.0),
        (40.0, "recent", 28.0),
        (607.0, "recent", 1.0),  # the twentieth of the class, at 608 s
        (608.0, "steady", 1800.0),
        (1e6, "steady", 1800.0),
        (-3.0, "fresh", 5.0),  # aired by a clock that is ahead
    ],
)
def test_a_state_walks_down_the_classes(age_s: float, airing_class: str, in_s: float) -> None:
    due = next_airing(stream(), NOW - timedelta(seconds=age_s), NOW)
    assert due is not None
    assert (due.airing_class, (due.by - NOW).total_seconds()) == (airing_class, in_s)


def test_what_was_never_aired_is_next_and_a_stretched_class_is_later() -> None:
    first = next_airing(stream(), None, NOW)
    assert first is not None
    assert (first.airing_class, first.by) == ("first airing", NOW)
    late = next_airing(stream(stretch=1.5), NOW - timedelta(seconds=40), NOW)
    assert late is not None
    assert (late.by - NOW).total_seconds() == 28 + 15


def test_a_cycler_that_tells_no_classes_promises_nothing() -> None:
    assert next_airing(stream(has_classes=False), NOW, NOW) is None
