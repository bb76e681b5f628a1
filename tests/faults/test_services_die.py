"""Proof 1: any service process may die at any moment; gateways may come and go unnoticed."""

import random
import time

import pytest

from tests.faults.figures import record
from tests.faults.scale import IS_FULL
from tests.faults.system import System

KILL_FOR_S = 600 if IS_FULL else 10
ROUNDS = 10 if IS_FULL else 1


@pytest.mark.timeout(1200)
def test_any_process_may_be_killed_each_second(system: System, seed: int) -> None:
    """SIGKILL to one at random, each second: no 2xx is lost or doubled, every box ends right."""
    chance = random.Random(seed)
    keeper = system.head_end.keeper
    kills_before, keeper.restarts_s = keeper.kills, []
    names = [*system.head_end.services, "haproxy"]
    with system.load(seed) as sms:
        end = time.monotonic() + KILL_FOR_S
        while (now := time.monotonic()) < end:
            keeper.kill(chance.choice(names))
            time.sleep(max(now + 1.0 - time.monotonic(), 0))  # the rate is what is asked for
    figures = system.verdict(sms)
    restarts_s = keeper.restarts_s
    record(
        "1-services",
        "kill -9 of a random process each second",
        for_s=KILL_FOR_S,
        faults=keeper.kills - kills_before,
        orders_per_s=sms.answered / KILL_FOR_S,
        worst_gap_s=sms.worst_gap_s,
        mean_recovery_s=sum(restarts_s) / len(restarts_s),
        worst_recovery_s=max(restarts_s),
        tries_repeated=sms.failed_tries.total(),
        seed=seed,
        **figures,
    )


@pytest.mark.timeout(600)
def test_gateways_come_and_go_unnoticed(system: System, seed: int) -> None:
    """Killed or stopped in turn, under load: HAProxy repeats, and not one try of the SMS fails."""
    head_end = system.head_end
    faults = 0
    with system.load(seed, pause_s=0.3) as sms:
        for _ in range(ROUNDS):
            for name in head_end.names["gateway"]:
                for end in (head_end.keeper.kill, head_end.keeper.stop):
                    head_end.wait_balanced()
                    answered = sms.answered
                    end(name)
                    faults += 1
                    head_end.keeper.wait_back(name)
                    assert sms.answered > answered
    assert sms.failed_tries == {}
    figures = system.verdict(sms)
    record(
        "1-gateways",
        "gateways killed and stopped in turn behind HAProxy",
        faults=faults,
        worst_gap_s=sms.worst_gap_s,
        slowest_answer_s=max(sms.latencies_s),
        tries_repeated=sms.failed_tries.total(),
        seed=seed,
        **figures,
    )
