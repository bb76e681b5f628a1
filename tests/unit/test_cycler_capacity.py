"""Whether the classes fit the bandwidth."""

from math import inf, log

import pytest

from portcullis.cycler.capacity import (
    capacity_of,
    check_fits,
    full_cycle_s,
    served,
    stretches,
)
from portcullis.cycler.config import StreamConfig
from portcullis.runtime.config import ConfigError


def test_the_default_classes_carry_half_a_million_boxes() -> None:
    """In 30 min at 1 Mbit/s, with ten orders a second, 528 of 665 packets a second are wanted."""
    capacity = capacity_of(StreamConfig(), 500_000, 10)
    assert capacity.demand == pytest.approx({"fresh": 50, "recent": 200, "steady": 277.8}, abs=0.1)
    assert capacity.supply == pytest.approx(664.9, abs=0.1)
    check_fits(StreamConfig(), 500_000, 10)


def test_what_cannot_fit_is_refused_with_what_would() -> None:
    """Two million boxes need 1,671 kbit/s."""
    with pytest.raises(ConfigError, match=r"2000000 boxes .* give 1671 kbit/s"):
        check_fits(StreamConfig(), 2_000_000, 0)


def test_a_full_cycle_is_what_is_left_for_the_last_class() -> None:
    """A million boxes at 1 Mbit/s take 25 min; orders leave them less, but never below a share."""
    stream = StreamConfig()
    assert full_cycle_s(stream, 1000, 0) == 1800
    assert full_cycle_s(stream, 2_000_000, 0) == pytest.approx(3008, abs=1)
    # 10 × 3,600 of the boxes are ordered for meanwhile: they have been aired, and need no turn.
    assert full_cycle_s(stream, 2_000_000, 10) == pytest.approx(2e5 * log(1 + 10 / 414.9), abs=2)
    assert full_cycle_s(stream, 2_000_000, 100) == pytest.approx(2e4 * log(1 + 100 / 199.5), abs=5)


def test_more_orders_than_packets_leave_the_classes_nothing() -> None:
    """First airings go before everything: 1,000 a second do not fit 665 packets."""
    assert served(StreamConfig(), 1000, 1000) == pytest.approx(
        {"fresh": 664.9, "recent": 0, "steady": 0}, abs=0.1
    )
    assert full_cycle_s(StreamConfig(), 1000, 1000) == inf


def test_a_class_that_falls_behind_its_orders_has_no_period() -> None:
    """30 orders a second: fresh has its 150 packets, recent wants 600 of what is left."""
    found = stretches(StreamConfig(), 500_000, 30)
    assert found["fresh"] == 1
    assert found["recent"] == inf
    assert found["steady"] == pytest.approx(500_000 / 30 * log(1 + 30 / 199.5) / 1800, abs=0.01)
