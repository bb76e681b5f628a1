"""Full cycles of a carousel: time on air over how long a cycle takes."""

import pytest

from portcullis.cycler.carousel import Carousel
from portcullis.cycler.config import AiringClass
from portcullis.cycler.cycles import CycleCounter
from portcullis.runtime.config import Duration
from tests.unit.cycler_emms import emm_row

WALL = 1_800_000_000.0
CLASSES = (
    AiringClass(name="fresh", every=Duration(2), airings=2),
    AiringClass(name="steady", every=Duration(100)),
)


def test_only_time_on_air_counts_and_by_the_cycle_as_it_is() -> None:
    """A stretched cycle counts less; silence counts nothing."""
    counter = CycleCounter()
    counter.airing(0.0, 10.0)
    counter.airing(5.0, 10.0)
    counter.airing(15.0, 20.0)
    assert counter.total == pytest.approx(1.0)
    counter.silent()
    counter.airing(500.0, 10.0)
    counter.airing(510.0, 10.0)
    assert counter.total == pytest.approx(2.0)


def test_a_cycle_is_the_longest_period_of_a_class_that_holds_anything() -> None:
    """Stretched as it is: an EMM that is overdue makes it longer."""
    carousel = Carousel(CLASSES)
    assert carousel.cycle_s(0.0) == 100.0
    carousel.upsert(emm_row(1, first_aired_at=WALL), 0.0, WALL)
    assert carousel.cycle_s(0.0) == 2.0
    carousel.upsert(emm_row(2, first_aired_at=WALL - 1000), 0.0, WALL)
    assert carousel.cycle_s(0.0) == 100.0
    assert carousel.cycle_s(150.0) == pytest.approx(150.0, rel=0.5)
