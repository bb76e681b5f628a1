"""How long orders have waited when they go on air."""

from portcullis.cycler.carousel import Carousel
from portcullis.cycler.config import AiringClass
from portcullis.runtime.config import Duration
from tests.unit.cycler_emms import emm_row

WALL = 1_800_000_000.0
CLASSES = (
    AiringClass(name="fresh", every=Duration(2), airings=3),
    AiringClass(name="steady", every=Duration(100)),
)


def waits(carousel: Carousel, now: float) -> list[float | None]:
    """Air all that is due; what is told of each first airing."""
    return [one.waited_s for one in carousel.take(9, now, WALL + now).first_airings]


def test_an_order_has_waited_since_it_came_or_since_its_window_began() -> None:
    carousel = Carousel(CLASSES)
    carousel.upsert(emm_row(1, ordered_at=WALL - 3), 0.0, WALL)
    carousel.upsert(emm_row(2, 5, ordered_at=WALL - 9, starts_at=WALL + 1), 0.0, WALL)
    carousel.upsert(emm_row(3), 0.0, WALL)
    assert waits(carousel, 0.5) == [3.5, None]
    assert waits(carousel, 1.25) == [0.25]


def test_a_wait_is_told_once_whatever_replaces_the_emm() -> None:
    """A re-key that follows the first airing, read before the database knows of it, is no order."""
    carousel = Carousel(CLASSES)
    carousel.upsert(emm_row(1, ordered_at=WALL - 3), 0.0, WALL)
    assert waits(carousel, 0.0) == [3.0]
    rekey = emm_row(1, number=2, cause="rekey", ordered_at=WALL - 3)
    carousel.upsert(rekey, 0.5, WALL)
    assert waits(carousel, 2.5) == [None]


def test_a_rekey_of_what_is_not_aired_yet_leaves_the_wait_of_its_order() -> None:
    carousel = Carousel(CLASSES)
    carousel.upsert(emm_row(1, ordered_at=WALL - 3), 0.0, WALL)
    carousel.upsert(emm_row(1, number=2, cause="rekey", ordered_at=WALL - 3), 0.5, WALL)
    assert waits(carousel, 1.0) == [4.0]


def test_what_was_aired_elsewhere_or_removed_waits_no_more() -> None:
    carousel = Carousel(CLASSES)
    carousel.upsert(emm_row(1, ordered_at=WALL - 3), 0.0, WALL)
    carousel.aired_elsewhere((1, 0, 1), 1, WALL - 1, 0.0, WALL)
    assert waits(carousel, 5.0) == []
    carousel.remove((1, 0, 1))
    carousel.upsert(emm_row(2), 6.0, WALL)  # in the same slot
    assert waits(carousel, 6.0) == [None]
