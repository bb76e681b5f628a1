"""The benchmarks of the carousel measure what they say: small, and with pretend times."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from bench import air, asrun
from bench.pace import Pace
from portcullis.cycler.asrun import query


def test_air_measures_a_cycler_beside_the_c_loop() -> None:
    """Both provisions, with real processes and a real database; how fast is not asked."""
    result = air.run(boxes=1000, seconds=0.5, rounds=1)
    assert [one.value > 0 for one in result.criteria] == [True, True]


def test_a_written_day_has_every_box_as_often_as_every_other(tmp_path: Path) -> None:
    """665 records a second, at times three of which share a turn of the cycler."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    assert asrun.write_day(tmp_path / "0x1-1", boxes=665, seconds=3, begin=begin) == 3 * 665
    (first, second, third) = query(tmp_path, 7)
    assert (second.aired_at - first.aired_at).total_seconds() == 1
    assert third.size == 63 + 23 * 3
    assert len({one.aired_at for one in query(tmp_path)}) == 3 * 222


def test_even_pace_has_no_error() -> None:
    """1,000 kbit/s in messages of seven packets."""
    gap_s = 7 * 188 * 8 / 1_000_000
    at = 1.7e9 + np.arange(int(10 / gap_s)) * gap_s
    pace = Pace(np.column_stack([at, np.full(len(at), 7)]), 1000, 7)
    assert pace.mean_percent == pytest.approx(0, abs=1e-4)
    assert pace.gap_ms == pytest.approx(0, abs=1e-3)
    assert pace.window_percent < 1.1  # a second may have one message of seven packets more


def test_a_second_without_packets_and_late_messages_are_seen() -> None:
    """A second is missing, and one message in ten comes 5 ms late."""
    gap_s = 7 * 188 * 8 / 1_000_000
    number = np.arange(int(10 / gap_s))
    at = 1.7e9 + number * gap_s + np.where(number % 10, 0, 0.005)
    noted = np.column_stack([at, np.full(len(at), 7)])
    noted = noted[(at < 1.7e9 + 5) | (at >= 1.7e9 + 6)]
    pace = Pace(noted, 1000, 7)
    assert pace.window_percent > 95
    assert pace.mean_percent > 10
    assert pace.gap_ms == pytest.approx(5, abs=0.1)
