"""What the carousel airs next."""

from itertools import accumulate
from math import inf
from typing import Any

import numpy as np
import pytest
from cycler_emms import emm_row
from hypothesis import given, settings
from hypothesis import strategies as st

from portcullis.cycler import carousel as carousel_module
from portcullis.cycler.carousel import Carousel
from portcullis.cycler.config import AiringClass
from portcullis.runtime.config import Duration
from portcullis.store.airable import EmmKey

FRESH = AiringClass(name="fresh", every=Duration(2), airings=3)
RECENT = AiringClass(name="recent", every=Duration(10), airings=2, min_share=0.1)
STEADY = AiringClass(name="steady", every=Duration(100), min_share=0.3)
CLASSES = (FRESH, RECENT, STEADY)
WALL = 1_800_000_000.0


def take(carousel: Carousel, packets: int, now: float) -> list[int]:
    """Take, with a wall clock that runs with the monotonic one; the devices picked."""
    picks = carousel.take(packets, now, WALL + now)
    return [carousel.arena.key(slot)[0] for slot in picks.slots.tolist()]


def put(carousel: Carousel, device_id: int, now: float = 0.0, **columns: float) -> None:
    """Insert or change a device's state."""
    carousel.upsert(emm_row(device_id, **columns), now, WALL + now)  # type: ignore[arg-type]


def test_an_order_is_aired_first_then_walks_down_the_classes() -> None:
    """First airing at once; then each class's period, as often as the class says."""
    carousel = Carousel(CLASSES)
    put(carousel, 7)
    assert carousel.next_due() == -inf
    moments, now = [], 0.0
    for _ in range(7):
        assert take(carousel, 5, now) == [7]
        assert take(carousel, 5, now) == []
        moments.append(now)
        now = carousel.next_due()
    assert moments == [0, 2, 4, 14, 24, 124, 224]


def test_first_airings_go_before_everything() -> None:
    """In the order they came, whatever else is due."""
    carousel = Carousel(CLASSES)
    for device in (1, 2, 3):
        put(carousel, device)
    take(carousel, 3, 0.0)
    put(carousel, 9, 50.0)
    put(carousel, 8, 50.0)
    assert take(carousel, 4, 50.0) == [9, 8, 1, 2]


@pytest.mark.parametrize("size", [100, 123])
def test_a_rekey_keeps_class_and_due_time(size: int) -> None:
    """It replaces the bytes, by more where a product has two keys, and costs no air time."""
    carousel = Carousel(CLASSES)
    put(carousel, 1)
    take(carousel, 1, 0.0)
    rekey = emm_row(1, number=2, size=size, cause="rekey", first_aired_at=WALL)
    carousel.upsert(rekey, 1.0, WALL + 1)
    assert carousel.next_due() == 2.0
    picks = carousel.take(1, 2.0, WALL + 2)
    assert carousel.arena.number(int(picks.slots[0])) == 2
    assert picks.first_airings == []


def test_a_first_airing_still_to_be_told_outlives_a_rekey() -> None:
    """Also one that takes more bytes, and when it was."""
    carousel = Carousel(CLASSES)
    put(carousel, 1)
    take(carousel, 1, 0.0)
    put(carousel, 1, 1.0, number=2, cause="rekey")  # type: ignore[arg-type]
    carousel.place(1000.0, WALL + 1000, (0, 0, 0))
    put(carousel, 1, 1000.0, number=3, size=123, cause="rekey")  # type: ignore[arg-type]
    (told,) = carousel.take(1, 1100.0, WALL + 1100).first_airings
    assert (told.revision, told.aired_at) == (3, WALL)


def test_a_new_order_puts_a_box_back_into_fresh() -> None:
    """A re-hit or another order is a first airing again."""
    carousel = Carousel(CLASSES)
    put(carousel, 1)
    for now in (0.0, 2.0, 4.0):
        take(carousel, 1, now)
    assert carousel.size(1) == 1
    put(carousel, 1, 5.0, number=2)
    assert take(carousel, 1, 5.0) == [1]
    assert carousel.size(0) == 1


def test_the_first_airing_is_told_once() -> None:
    """With what it covers; a re-key sealed before the database knew is told under its revision."""
    carousel = Carousel(CLASSES)
    put(carousel, 1)
    (told,) = carousel.take(1, 0.0, WALL).first_airings
    assert (told.device_id, told.revision, told.covers, told.aired_at) == (1, 1, 1, WALL)
    assert told.completes_set
    assert carousel.take(1, 2.0, WALL + 2).first_airings == []
    put(carousel, 1, 3.0, number=2, cause="rekey")  # type: ignore[arg-type]
    (told,) = carousel.take(1, 4.0, WALL + 4).first_airings
    assert (told.revision, told.aired_at) == (2, WALL)


def test_a_set_is_on_air_when_its_last_part_is() -> None:
    """The parts of one number complete it, those of another do not."""
    carousel = Carousel(CLASSES)
    for part in (1, 2):
        carousel.upsert(emm_row(1, 0, part, parts=2, number=5), 0.0, WALL)
    told = carousel.take(2, 0.0, WALL).first_airings
    assert [one.completes_set for one in told] == [False, True]
    carousel.upsert(emm_row(1, 0, 1, parts=2, number=6), 1.0, WALL)
    told = carousel.take(1, 1.0, WALL).first_airings
    assert [one.completes_set for one in told] == [False]


def test_nothing_is_aired_outside_its_window() -> None:
    """Not before its start, not from its end on."""
    carousel = Carousel(CLASSES)
    carousel.upsert(emm_row(1, 5, starts_at=WALL + 10, ends_at=WALL + 13), 0.0, WALL)
    assert carousel.next_due(wall_ahead=WALL) == 10.0
    assert take(carousel, 1, 9.9) == []
    assert take(carousel, 1, 10.0) == [1]
    assert take(carousel, 1, 12.0) == [1]
    assert take(carousel, 1, 14.0) == []
    assert len(carousel.arena) == 0


def test_a_window_that_moves_is_obeyed() -> None:
    """An EMM that waited for one start and now has another waits for that."""
    carousel = Carousel(CLASSES)
    carousel.upsert(emm_row(1, 5, starts_at=WALL + 10), 0.0, WALL)
    carousel.upsert(emm_row(1, 5, size=120, starts_at=WALL + 20), 0.0, WALL)
    assert take(carousel, 1, 15.0) == []
    assert take(carousel, 1, 20.0) == [1]


def test_a_removed_emm_is_never_aired_again() -> None:
    """From whatever queue."""
    carousel = Carousel(CLASSES)
    put(carousel, 1)
    put(carousel, 2)
    take(carousel, 1, 0.0)
    carousel.remove((1, 0, 1))
    carousel.remove((2, 0, 1))
    carousel.remove((3, 0, 1))
    assert take(carousel, 5, 1000.0) == []
    assert carousel.next_due() == inf


def overdue(devices: int, **columns: float) -> Carousel:
    """A carousel with so many states in the last class, all due by the hundredth second."""
    carousel = Carousel(CLASSES)
    for device in range(1, devices + 1):
        put(carousel, device, first_aired_at=WALL - 1000, **columns)
    carousel.place(0.0, WALL, (0, 0, 0))
    return carousel


def test_what_was_looked_at_and_is_removed_meanwhile_is_not_aired() -> None:
    """Though what comes next is looked at once for several turns; nor is one that is over."""
    carousel = overdue(30)
    put(carousel, 31, first_aired_at=WALL - 1000, ends_at=WALL + 205)
    assert take(carousel, 2, 200.0) == [1, 2]
    carousel.remove((4, 0, 1))
    assert take(carousel, 2, 200.1) == [3, 5]
    assert take(carousel, 30, 205.0) == list(range(6, 31))
    assert len(carousel.arena) == 29


def test_what_was_looked_at_and_is_replaced_meanwhile_goes_out_with_its_new_bytes() -> None:
    """As packets and as section, and in the as-run log; of its old size or another."""
    carousel = overdue(10)
    assert carousel.take(2, 200.0, WALL + 200).pieces[0].packets
    put(carousel, 3, 200.0, number=9, cause="rekey", first_aired_at=WALL - 1000)  # type: ignore[arg-type]
    put(carousel, 4, 200.0, number=8, size=120, cause="rekey", first_aired_at=WALL - 1000)  # type: ignore[arg-type]
    (piece,) = carousel.take(2, 200.1, WALL + 200).pieces
    assert piece.headers.number.tolist() == [9, 8]
    sections = [emm_row(3, number=9).section, emm_row(4, number=8, size=120).section]
    assert piece.sections == sections
    packets = [piece.packets[start : start + 188] for start in (0, 188)]
    assert [bytes(one[5 : 5 + len(two)]) for one, two in zip(packets, sections, strict=True)] == (
        sections
    )


def test_an_order_for_what_was_looked_at_is_aired_in_the_next_turn() -> None:
    """And only once."""
    carousel = overdue(10)
    take(carousel, 2, 200.0)
    put(carousel, 7, 200.0, number=2)
    assert take(carousel, 3, 200.004) == [7, 3, 4]
    assert take(carousel, 9, 200.008) == [5, 6, 8, 9, 10]


def test_what_was_aired_is_due_a_period_after_its_own_turn() -> None:
    """Whenever somebody asks."""
    carousel = overdue(4)
    for now in (200.0, 200.5, 201.0, 201.5):
        take(carousel, 1, now)
    assert carousel.position == (4, 0, 1)
    assert carousel.aired == [0, 0, 4]
    assert carousel.next_due() == 300.0
    assert [take(carousel, 9, now) for now in (300.4, 300.6, 301.2)] == [[1], [2], [3]]


def test_an_emm_of_two_packets_costs_two() -> None:
    """And is not begun with one packet left."""
    carousel = Carousel(CLASSES)
    put(carousel, 1, size=184)
    assert take(carousel, 1, 0.0) == []
    picks = carousel.take(2, 0.0, WALL)
    assert picks.packets == 2


def test_under_overload_each_class_keeps_its_share() -> None:
    """A class that is always due gets its min_share at least; the rest goes by priority."""
    carousel = Carousel(CLASSES)
    ages = {"fresh": 0.0, "recent": 5.0, "steady": 1000.0}
    for number, age in enumerate(ages.values()):
        for device in range(3000):
            put(carousel, number * 3000 + device + 1, first_aired_at=WALL - age)
    carousel.place(0.0, WALL, (0, 0, 0))
    assert [carousel.size(index) for index in range(3)] == [3000, 3000, 3000]
    now = 200.0
    for _ in range(1000):
        take(carousel, 1, now)
        now += 0.001
    fresh, recent, steady = carousel.aired
    assert recent == pytest.approx(100, abs=2)
    assert steady == pytest.approx(300, abs=2)
    assert fresh == pytest.approx(600, abs=4)
    assert carousel.stretch(2, now) > 1.5


def test_shares_are_of_all_packets_first_airings_included() -> None:
    """What first airings took from a class is given back as soon as they leave room."""
    carousel = Carousel((FRESH, STEADY))
    for device in range(1, 2001):
        put(carousel, device, first_aired_at=WALL - 1000)
    carousel.place(0.0, WALL, (0, 0, 0))
    now, steady = 500.0, 0
    for turn in range(100):
        for device in range(5):  # half of the bandwidth: orders
            put(carousel, 10_000 + turn * 5 + device, now)
        steady += sum(device <= 2000 for device in take(carousel, 10, now))
        now += 0.01
    assert steady >= 290


def test_on_time_the_stretch_is_one() -> None:
    """And grows with lateness."""
    carousel = Carousel(CLASSES)
    put(carousel, 1)
    take(carousel, 1, 0.0)
    assert carousel.stretch(0, 2.0) == 1.0
    assert carousel.stretch(0, 6.0) == 3.0


@settings(max_examples=50)
@given(ages=st.lists(st.floats(0, 500), min_size=1, max_size=40))
def test_after_a_load_an_emm_is_where_it_would_have_been(ages: list[float]) -> None:
    """In the walked classes class and due time are those of a carousel that never stopped."""
    witness = Carousel(CLASSES)
    restarted = Carousel(CLASSES)
    for device, age in enumerate(ages, start=1):
        put(restarted, device, first_aired_at=WALL - age)
        put(witness, device)
    restarted.place(0.0, WALL, (0, 0, 0))
    for device, age in enumerate(ages, start=1):
        alone = Carousel(CLASSES)
        put(alone, device)
        now = 0.0
        while now <= age:
            take(alone, 1, now)
            now = alone.next_due()
        slot = restarted.arena.find((device, 0, 1))
        assert slot is not None
        ring = restarted._rings.ring_of(slot)
        assert alone._rings.sizes[ring] == 1
        if ring < restarted._rings.last:
            (record,), (expected,) = restarted._rings.record(slot), alone._rings.record(0)
            due = restarted._rings.moment(int(record["due"]))
            assert due == pytest.approx(now - age, abs=0.0011)
            assert record["airings"] == expected["airings"]


def test_a_restart_goes_on_behind_the_position_without_burst_or_gap() -> None:
    """The steady ring is spread over its period, beginning behind the last EMM aired."""
    carousel = Carousel(CLASSES)
    for device in range(1, 101):
        put(carousel, device, first_aired_at=WALL - 10_000)
    carousel.place(0.0, WALL, (60, 0, 1))
    order = [device for second in range(100) for device in take(carousel, 50, float(second))]
    assert order == [*range(61, 101), *range(1, 61)]
    assert carousel.position == (60, 0, 1)


def test_what_another_cycler_has_aired_first_is_not_first_here() -> None:
    """A standby learns it and sorts it in by age."""
    carousel = Carousel(CLASSES)
    put(carousel, 1)
    carousel.aired_elsewhere((1, 0, 1), 1, WALL - 1000, 0.0, WALL)
    assert carousel.first_waiting == []
    assert carousel.size(2) == 1
    assert carousel.take(1, 200.0, WALL + 200).first_airings == []


def test_a_reload_of_the_same_rows_changes_nothing() -> None:
    """What has been aired here is not first again though the row does not say so yet."""
    carousel = Carousel(CLASSES)
    put(carousel, 1)
    take(carousel, 1, 0.0)
    put(carousel, 1, 1.0)
    assert carousel.first_size == 0


def saturated(devices: int) -> Carousel:
    """Every class has much due at 200 s: of three devices one is in each."""
    carousel = Carousel(CLASSES)
    for device in range(1, devices + 1):
        age = (0.0, 5.0, 1000.0)[device % 3]
        put(carousel, device, first_aired_at=WALL - age)
    carousel.place(0.0, WALL, (0, 0, 0))
    return carousel


EVENTS = st.one_of(
    st.tuples(st.just("turn"), st.integers(1, 12)),
    st.tuples(st.just("rekey"), st.integers(1, 300)),
    st.tuples(st.just("remove"), st.integers(1, 300)),
    st.tuples(st.just("ask"), st.just(0)),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=12), st.integers(1, 20))
def test_a_plan_serves_each_class_as_turns_chosen_one_by_one_would(
    events: list[tuple[str, int]], packets: int
) -> None:
    """In its order, and at each turn within a packet for each class, whatever comes between."""
    removed = {value for what, value in events if what == "remove"}
    turns: list[list[list[int]]] = []
    for planned_from in (1, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(carousel_module, "_PLANNED", planned_from)
            carousel, now, seen = saturated(300), 200.0, list[list[int]]()
            for number, (what, value) in enumerate(events, start=2):
                if what == "turn":
                    for _ in range(value):
                        seen.append(take(carousel, packets, now))
                        now += 0.006
                elif what == "rekey":
                    put(carousel, value, now, number=number, cause="rekey")  # type: ignore[arg-type]
                elif what == "remove":
                    carousel.remove((value, 0, 1))
                else:
                    assert carousel.first_aired + sum(carousel.aired) == sum(map(len, seen))
            assert_whole(carousel)
            turns.append(seen)
    for class_ in range(3):
        planned, single = (
            [[device for device in turn if device % 3 == class_] for turn in one] for one in turns
        )
        counts = (accumulate(map(len, planned)), accumulate(map(len, single)))
        assert all(abs(ours - theirs) <= 3 for ours, theirs in zip(*counts, strict=True))
        kept = [
            [device for turn in one for device in turn if device not in removed]
            for one in (planned, single)
        ]
        assert all(ours == theirs for ours, theirs in zip(*kept, strict=False))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 15), st.integers(0, 2)), min_size=1, max_size=20))
def test_a_plan_holds_whatever_size_the_turns_are(turns: list[tuple[int, int]]) -> None:
    """Each turn is filled, orders first; each class goes round in its order, with its share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carousel_module, "_PLANNED", 1)
        carousel, now, total = saturated(900), 200.0, 0
        steady: list[int] = []
        for number, (packets, orders) in enumerate(turns):
            ordered = [10_000 + 10 * number + order for order in range(orders)]
            for device in ordered:
                put(carousel, device, now)
            picked = take(carousel, packets, now)
            assert len(picked) == packets
            assert picked[: len(ordered)] == ordered
            steady += [device for device in picked if device < 10_000 and device % 3 == 2]
            total += packets
            now += 0.006
        assert steady == sorted(steady)
        assert len(steady) >= STEADY.min_share * total - 64
        assert carousel.first_aired + sum(carousel.aired) == total
        assert_whole(carousel)


def test_a_plan_ends_where_another_class_has_something_due() -> None:
    """As it ends where a window opens, or one closes."""
    carousel = Carousel(CLASSES)
    for device in range(1, 1001):
        put(carousel, device, first_aired_at=WALL - 1000)
    carousel.place(0.0, WALL, (0, 0, 0))
    put(carousel, 2001, 198.01)
    put(carousel, 2002, 198.01, starts_at=WALL + 200.03)
    assert take(carousel, 1, 198.01) == [2001]
    for turn, device in enumerate((0, 2001, 0, 2002, 0)):
        picked = take(carousel, 30, 200.005 + turn / 100)
        assert [one for one in picked if one > 2000] == [device][: bool(device)]
    over: dict[str, Any] = {"ends_at": WALL + 200.1, "cause": "rekey", "number": 2}
    put(carousel, 700, 200.05, first_aired_at=WALL - 1000, **over)
    seen = [device for turn in range(40) for device in take(carousel, 28, 200.05 + turn / 100)]
    assert 699 in seen
    assert 700 not in seen
    assert 701 in seen


class Model:
    """The same rules, said without queues: a dictionary, searched each time."""

    def __init__(self) -> None:
        self.entries: dict[EmmKey, list[float]] = {}  # ring, due, arrival, airings
        self.credit = [0.0] * 3
        self.arrivals = 0

    def queue(self, key: EmmKey, ring: int, due: float, airings: int = 0) -> None:
        """Put a key at the end of a queue."""
        self.arrivals += 1
        self.entries[key] = [ring, due, self.arrivals, airings]

    def due(self, ring: int, now: float) -> list[EmmKey]:
        """The keys of a ring that are due, in order."""
        here = [key for key, entry in self.entries.items() if entry[0] == ring and entry[1] <= now]
        return sorted(here, key=lambda key: self.entries[key][2])

    def take(self, packets: int, now: float) -> list[EmmKey]:
        """Choose EMMs of one packet each: first airings, then shares, then by priority."""
        first = self.due(0, now)[:packets]
        left = packets - len(first)
        due = [self.due(ring, now) for ring in (1, 2, 3)]
        spent = len(first) + min(left, sum(map(len, due)))
        for index, one in enumerate(CLASSES):
            earned = self.credit[index] + one.min_share * spent
            self.credit[index] = min(earned, 64.0) if due[index] else 0.0
        counts = [0, 0, 0]
        if sum(map(len, due)) <= left:
            counts = [len(keys) for keys in due]
        else:
            for index in sorted(range(3), key=lambda index: -self.credit[index]):
                counts[index] = min(len(due[index]), int(self.credit[index]), left)
                left -= counts[index]
            for index in range(3):
                more = min(len(due[index]) - counts[index], left)
                counts[index] += more
                left -= more
        for index in range(3):
            self.credit[index] = max(self.credit[index] - counts[index], 0.0)
        served = [(0, first), *((i + 1, due[i][: counts[i]]) for i in range(3))]
        for ring, keys in served:
            self._move_on(ring, keys, now)
        return [key for _, keys in served for key in keys]

    def _move_on(self, ring: int, keys: list[EmmKey], now: float) -> None:
        """Those that stay go behind the others of their class, then the rest into the next."""
        ring = max(ring, 1)
        limit = CLASSES[ring - 1].airings
        stay = [key for key in keys if limit is None or self._airings(key) < limit]
        for key in stay:
            self.queue(key, ring, now + CLASSES[ring - 1].every, self._airings(key))
        for key in keys:
            if key not in stay:
                self.queue(key, ring + 1, now + CLASSES[ring].every)

    def _airings(self, key: EmmKey) -> int:
        """How many airings in its class the present one makes."""
        ring, _, _, airings = self.entries[key]
        return 1 if ring == 0 else int(airings) + 1


OPERATIONS = st.one_of(
    st.tuples(st.just("order"), st.integers(1, 12)),
    st.tuples(st.just("rekey"), st.integers(1, 12)),
    st.tuples(st.just("remove"), st.integers(1, 12)),
    st.tuples(st.just("take"), st.integers(1, 6)),
    st.tuples(st.just("wait"), st.integers(1, 40)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(OPERATIONS, max_size=80))
def test_the_carousel_does_what_its_model_does(operations: list[tuple[str, int]]) -> None:
    """After any operations the picks are the model's and the links are whole."""
    carousel, model = Carousel(CLASSES), Model()
    now = 0.0
    for number, (what, value) in enumerate(operations, start=1):
        key, size = (value, 0, 1), 100 + number % 3
        if what == "order":
            put(carousel, value, now, number=number, size=size)
            if key not in model.entries or model.entries[key][0] != 0:
                model.queue(key, 0, now)
        elif what == "rekey" and key in model.entries:
            put(carousel, value, now, number=number, size=size, cause="rekey")  # type: ignore[arg-type]
        elif what == "remove":
            carousel.remove(key)
            model.entries.pop(key, None)
        elif what == "take":
            assert take(carousel, value, now) == [key[0] for key in model.take(value, now)]
        elif what == "wait":
            now += value / 2
        assert_whole(carousel)
        assert len(carousel.arena) == len(model.entries)


def assert_whole(carousel: Carousel) -> None:
    """Every ring is as long as it says, falls nowhere, and no EMM is in two."""
    rings = carousel._rings
    seen: list[int] = []
    for ring in range(1, rings.last + 1):
        records = rings.live(ring)
        assert len(records) == rings.sizes[ring]
        assert (np.diff(records["due"].astype(np.int64)) >= 0).all()
        seen += records["slot"].tolist()
    assert sorted(seen) == sorted(carousel.arena.slots().tolist())


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 60), packets=st.integers(1, 5), seconds=st.integers(1, 5))
def test_no_emm_starves_however_short_the_bandwidth(count: int, packets: int, seconds: int) -> None:
    """With first airings done, every EMM is aired again within a bounded number of turns."""
    carousel = Carousel(CLASSES)
    for device in range(1, count + 1):
        age = (0.0, 5.0, 1000.0)[device % 3]
        put(carousel, device, first_aired_at=WALL - age)
    carousel.place(0.0, WALL, (0, 0, 0))
    seen: set[int] = set()
    now = 0.0
    for _ in range(100 // seconds + 40 * count):
        now += seconds
        seen.update(take(carousel, packets, now))
    assert seen == set(range(1, count + 1))


def test_never_earlier_than_due() -> None:
    """Free bandwidth is no reason to repeat."""
    carousel = Carousel(CLASSES)
    put(carousel, 1)
    take(carousel, 10, 0.0)
    assert take(carousel, 10, 1.999) == []
