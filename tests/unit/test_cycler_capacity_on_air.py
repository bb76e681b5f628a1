"""What the formulas foretell is what the carousel does: the same stream, on a hand-wound clock."""

from dataclasses import dataclass
from math import inf

import pytest
from cycler_emms import emm_row, section_of

from portcullis.cycler.arena import StateSections
from portcullis.cycler.capacity import full_cycle_s, served, stretches
from portcullis.cycler.carousel import Carousel
from portcullis.cycler.config import AiringClass, StreamConfig
from portcullis.cycler.pacer import Pacer
from portcullis.runtime.config import Duration

_TURN_S = 0.02
_CLASSES = (
    AiringClass(name="fresh", every=Duration(0.5), airings=5),
    AiringClass(name="recent", every=Duration(1), airings=5, min_share=0.1),
    AiringClass(name="steady", every=Duration(10), min_share=0.3),
)


@dataclass
class Aired:
    """Packets a second of each class, and the stretch of the last, over the second half."""

    per_s: dict[str, float]
    stretch: float


def _air(stream: StreamConfig, boxes: int, orders_per_s: float, seconds: float) -> Aired:
    carousel = Carousel(stream.classes)
    carousel.begin_load()
    states = b"".join(section_of(box, 1, 100) for box in range(1, boxes + 1))
    carousel.settle(StateSections.of(states, 0, boxes), 0.0, 1e9)
    carousel.end_load()
    carousel.place(0.0, 1e9, (0, 0, 0))
    pacer = Pacer(stream.bandwidth_kbit_s, 0.0)
    now, ordered = 0.0, 0
    before: list[int] = []
    while now < seconds:
        now += _TURN_S
        while ordered < orders_per_s * now:
            ordered += 1
            box = 1 + ordered * 7919 % boxes  # 7919 is prime: another box each time
            emm = emm_row(box, number=1 + ordered, ordered_at=1e9 + now)
            carousel.upsert(emm, now, 1e9 + now)
        picks = carousel.take(pacer.available(now), now, 1e9 + now)
        pacer.spend(picks.packets)
        if not before and now >= seconds / 2:
            before = [carousel.first_aired, *carousel.aired]
    after = [carousel.first_aired, *carousel.aired]
    first, *rest = [(b - a) / (seconds / 2) for a, b in zip(before, after, strict=True)]
    per_s = dict(zip((one.name for one in stream.classes), rest, strict=True))
    per_s[stream.classes[0].name] += first
    return Aired(per_s, carousel.stretch(len(stream.classes) - 1, now))


@pytest.mark.parametrize(
    ("boxes", "kbit_s", "orders_per_s"),
    [
        (1000, 300, 3),  # all on time
        (4000, 300, 1),  # the last class stretches
        (20_000, 1500, 4),
        (40_000, 3000, 10),
        (10_000, 600, 20),  # orders take half
        (10_000, 600, 30),  # orders leave the last class its share
    ],
)
def test_the_carousel_airs_what_was_foretold(boxes: int, kbit_s: int, orders_per_s: float) -> None:
    """Within 5 %, for each class and for the cycle of the last."""
    stream = StreamConfig(bandwidth_kbit_s=kbit_s, classes=_CLASSES)
    cycle_s = full_cycle_s(stream, boxes, orders_per_s)
    aired = _air(stream, boxes, orders_per_s, seconds=2 * cycle_s + 10)
    assert aired.per_s == pytest.approx(served(stream, boxes, orders_per_s), rel=0.05)
    foretold = stretches(stream, boxes, orders_per_s)
    if foretold["recent"] == inf:  # boxes pile up there: the last class has fewer and fewer
        assert 1 < aired.stretch < foretold["steady"]
    else:
        assert aired.stretch == pytest.approx(foretold["steady"], rel=0.05)
