"""Proof 3: encryptor, multiplexer and database each away for a time; what comes of its own accord.

Recovery: from the part's return until an order given then has reached its box.
"""

import time

import pytest

from tests.faults.figures import record
from tests.faults.scale import IS_FULL
from tests.faults.system import System
from tests.faults.wires import DATABASE, Wires

AWAY_S = 30 if IS_FULL else 3
RECOVERED_WITHIN_S = 5.0 if IS_FULL else 30.0  # the short form shares its machine
WAYS = ["killed", "refused", "silent"] if IS_FULL else ["killed"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("part", ["encryptor1", "mux1", DATABASE])
def test_a_part_may_be_away(wired: System, wires: Wires, seed: int, part: str, how: str) -> None:
    """Dead, refusing or silent: nothing is lost, and when it is back nobody lends a hand."""
    with wired.load(seed) as sms, wired.probe() as probe:
        probe.seen()
        sms.reset_gap()
        leave(wired, wires, part, how)
        heard_before = wired.boxes.repeats()
        if part == DATABASE:
            wired.refuses()
        time.sleep(AWAY_S)
        assert part == "mux1" or wired.boxes.repeats() > heard_before, "the carousel stood still"
        back_at = come_back(wired, wires, part, how)
        recovery_s = probe.seen() - back_at
    figures = wired.verdict(sms)
    assert recovery_s < RECOVERED_WITHIN_S
    record(
        f"3-away-{part.rstrip('1')}-{how}",
        f"{part.rstrip('1')} {how} for {AWAY_S} s",
        for_s=AWAY_S,
        faults=1,
        worst_gap_s=sms.worst_gap_s,
        mean_recovery_s=recovery_s,
        worst_recovery_s=recovery_s,
        seed=seed,
        **figures,
    )


def leave(system: System, wires: Wires, part: str, how: str) -> None:
    """Take a part away."""
    if how == "refused":
        for wire in wires.to(part):
            wire.refuse()
    elif how == "silent":
        for wire in wires.to(part):
            wire.go_silent()
    elif part == DATABASE:
        system.cluster.kill(system.cluster.primary)
    else:
        system.head_end.keeper.hold(part)


def come_back(system: System, wires: Wires, part: str, how: str) -> float:
    """Let it return; monotonic time when it has."""
    if how != "killed":
        for wire in wires.to(part):
            wire.restore()
    elif part == DATABASE:
        cluster = system.cluster
        cluster.start(cluster.primary)
        cluster.promote(cluster.primary)
    else:
        keeper = system.head_end.keeper
        keeper.let(part)
        keeper.wait_back(part)
        ready_at = keeper.parts[part].ready_at
        assert ready_at is not None
        return ready_at
    return time.monotonic()
