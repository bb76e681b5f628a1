"""Full cycles of a carousel: counted by what was aired."""

import pytest

from portcullis.cycler.carousel import Carousel
from portcullis.cycler.config import AiringClass
from portcullis.cycler.cycles import Cycle, CycleCounter
from portcullis.runtime.config import Duration
from tests.unit.cycler_emms import emm_row

WALL = 1_800_000_000.0
CLASSES = (
    AiringClass(name="fresh", every=Duration(2), airings=2),
    AiringClass(name="steady", every=Duration(100)),
)


def test_a_cycle_is_over_when_all_was_aired_since_it_began() -> None:
    """However long it was thought to take; the part of one that is cut short does not count."""
    counter = CycleCounter()
    counter.airing(0.0, Cycle(10.0, -8.0))
    counter.airing(5.0, Cycle(10.0, -5.0))
    assert counter.total == pytest.approx(0.5)
    counter.airing(30.0, Cycle(10.0, -1.0))  # it is stretched
    assert 0.9 < counter.total < 1
    counter.airing(40.0, Cycle(40.0, 0.0))
    assert counter.total == 1.0
    counter.airing(79.0, Cycle(40.0, 39.0))
    counter.silent()
    counter.airing(100.0, Cycle(40.0, 60.0))
    assert 1 < counter.total < 2
    counter.airing(139.0, Cycle(40.0, 99.0))
    assert counter.total < 2
    counter.airing(140.0, Cycle(40.0, 100.0))
    assert counter.total == 2.0


def test_the_next_holder_begins_a_cycle_anew() -> None:
    """It goes on from the full ones."""
    counter = CycleCounter()
    counter.take_over(13.97)
    assert counter.total == 13.0
    counter.airing(0.0, Cycle(10.0, -10.0))
    counter.airing(9.0, Cycle(10.0, -1.0))
    assert counter.total == pytest.approx(13.9)
    counter.airing(10.0, Cycle(10.0, 0.0))
    assert counter.total == 14.0


@pytest.mark.parametrize("per_s", [1, 2, 5])
def test_a_cycle_is_counted_only_after_every_emm_was_aired_in_it(per_s: int) -> None:
    """Of a hundred EMMs, due every 50 s, on air at one, two or five a second, from a take-over."""
    carousel, counter = Carousel((AiringClass(name="steady", every=Duration(50)),)), CycleCounter()
    for device_id in range(1, 101):
        carousel.upsert(emm_row(device_id, first_aired_at=WALL - 1000), 0.0, WALL)
    carousel.place(0.0, WALL, (0, 0, 0))
    aired: set[int] = set()
    counted = 0
    for now in map(float, range(401)):
        counter.airing(now, carousel.cycle(now))
        if int(counter.total) > counted:
            counted += 1
            assert len(aired) == 100
            aired.clear()
        aired.update(carousel.take(per_s, now, WALL + now).slots.tolist())
    assert counted == {1: 4, 2: 7, 5: 7}[per_s]


def test_a_cycle_is_the_longest_period_of_a_class_that_holds_anything() -> None:
    """Stretched as it is: an EMM that is overdue makes it longer."""
    carousel = Carousel(CLASSES)
    assert carousel.cycle(0.0).seconds == 100.0
    carousel.upsert(emm_row(1, first_aired_at=WALL), 0.0, WALL)
    assert carousel.cycle(0.0).seconds == 2.0
    carousel.upsert(emm_row(2, first_aired_at=WALL - 1000), 0.0, WALL)
    assert carousel.cycle(0.0).seconds == 100.0
    assert carousel.cycle(150.0).seconds == pytest.approx(150.0, rel=0.5)
