"""The wall clock, when somebody sets it or it is not the database's."""

import pytest

from portcullis.runtime.clock import OFFSET, STEPS, WallClock


class Hands:
    """Both clocks, moved by hand; `clock` reads them."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_000_000.0, 5.0
        self.held_up_s = 0.0
        """How long the process waits for its turn after it has read a clock."""
        self.clock = WallClock(self._read_wall, lambda: self.steady)

    def _read_wall(self) -> float:
        wall = self.wall
        self.wall += self.held_up_s
        self.steady += self.held_up_s
        return wall

    def go(self, seconds: float) -> None:
        """Let time pass, looked at as a service does."""
        self.wall += seconds
        self.steady += seconds
        assert self.clock.stepped() == 0

    def set(self, seconds: float) -> None:
        """Set the wall clock forward, or back."""
        self.wall += seconds
        assert self.clock.stepped() == seconds
        assert self.clock.stepped() == 0


@pytest.fixture
def hands() -> Hands:
    """A clock of the test's own."""
    return Hands()


def test_a_clock_that_is_set_is_told_from_one_that_goes(hands: Hands) -> None:
    """Forwards and back, by how much, and once; each is counted."""
    before = STEPS._value.get()
    hands.go(10)
    hands.set(-3600)
    hands.set(7200)
    assert STEPS._value.get() == before + 2


def test_a_step_is_said_for_an_hour(hands: Hands) -> None:
    """Whoever asks `/readyz` in that time hears of it."""
    assert hands.clock.notice() is None
    hands.set(3600)
    assert hands.clock.notice() == "it was set forward by 3600 s in the last hour"
    hands.go(3599)
    assert hands.clock.notice() is not None
    hands.go(2)
    assert hands.clock.notice() is None
    hands.set(-3600)
    assert hands.clock.notice() == "it was set back by 3600 s in the last hour"


def test_a_step_is_said_at_once(hands: Hands) -> None:
    """Also before the service has looked, and long after an earlier one."""
    hands.set(100)
    hands.go(10_000)
    hands.wall += 3600
    assert hands.clock.notice() == "it was set forward by 3600 s in the last hour"


def test_a_process_that_is_held_up_takes_that_for_no_step(hands: Hands) -> None:
    """Between one clock and the other minutes may pass on a machine that swaps, or was paused."""
    hands.held_up_s = 120.0
    assert hands.clock.stepped() == 0
    assert hands.clock.notice() is None
    hands.held_up_s = 0.0
    assert hands.clock.stepped() == 0
    hands.set(3600)
    assert hands.clock.notice() is not None


def test_a_step_that_was_taken_back_is_over(hands: Hands) -> None:
    """Nothing is left to be put right."""
    hands.set(3600)
    hands.go(60)
    hands.set(-3600)
    assert hands.clock.notice() is None


def test_seconds_degrade_nothing(hands: Hands) -> None:
    """A clock that NTP has set right after a start."""
    hands.set(5)
    hands.clock.compare(hands.wall - 59)
    assert hands.clock.notice() is None


@pytest.mark.parametrize(("ahead_s", "which"), [(3600, "ahead of"), (-3600, "behind")])
def test_a_clock_that_is_not_the_databases_is_said_as_long_as_it_is_so(
    hands: Hands, ahead_s: float, which: str
) -> None:
    """However long ago it was set, and though this process was started since."""
    hands.clock.compare(hands.wall - ahead_s)
    hands.go(10_000)
    assert hands.clock.notice() == f"it is 3600 s {which} the database's"
    assert OFFSET._value.get() == ahead_s
    hands.clock.compare(hands.wall)
    assert hands.clock.notice() is None
