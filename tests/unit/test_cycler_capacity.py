"""Whether the classes fit the bandwidth."""

import pytest

from portcullis.cycler.capacity import capacity_of, check_fits
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
