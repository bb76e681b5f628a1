"""Proof 1: any service may die at any moment; gateways may come, go and hang."""

import random
import subprocess
import time

import pytest

from tests.faults.figures import record
from tests.faults.scale import IS_FULL
from tests.faults.sms import wait_for_orders
from tests.faults.system import System
from tests.operations import blocks

KILL_FOR_S = 600 if IS_FULL else 10
ROUNDS = 10 if IS_FULL else 1
HANG_S = 30 if IS_FULL else 3
DRAINED = 0x08  # SRV_ADMF_FDRAIN


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


def test_a_gateway_is_taken_out_by_hand_as_the_page_says(system: System, seed: int) -> None:
    """By HAProxy's socket, under load: drained, it has no new order; then it is back."""
    [block] = blocks("load-balancer.md", "Look at it")
    block = block.replace("/run/haproxy/admin.sock", str(system.head_end.home / "haproxy.sock"))
    drain, show, ready = block.splitlines()

    def typed(command: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], check=True, capture_output=True, text=True
        )
        return done.stdout

    system.head_end.wait_balanced()
    with system.load(seed) as sms:
        wait_for_orders(sms)
        typed(drain)
        assert admin_state(typed(show)) & DRAINED
        wait_for_orders(sms)
        typed(ready)
        assert not admin_state(typed(show)) & DRAINED
    assert sms.failed_tries.total() == 0


def admin_state(shown: str) -> int:
    """Of gateway1, in what HAProxy's `show servers state` says (its management guide, 9.3)."""
    _, names, *rows = shown.splitlines()
    at = names.lstrip("# ").split().index("srv_admin_state")
    [row] = [row.split() for row in rows if " gateway1 " in row]
    return int(row[at])


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


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [1, 2], ids=["one", "all"])
def test_gateways_may_hang(system: System, seed: int, count: int) -> None:
    """What one has in hand goes to the other; where all hang it is said. Nothing is done twice.

    What a gateway that hung had taken it does when it wakes, long after another has done it.
    """
    head_end = system.head_end
    hung = head_end.names["gateway"][:count]
    with system.load(seed, pause_s=0.3) as sms, system.probe() as probe:
        head_end.wait_balanced()
        sms.reset_gap()
        with head_end.keeper.hung(*hung):
            head_end.wait_balanced(*hung)
            if count == 1:
                probe.seen()
            else:
                system.refuses()
            time.sleep(HANG_S)
        woke_at = time.monotonic()
        head_end.wait_balanced()
        recovery_s = probe.seen() - woke_at
    figures = system.verdict(sms)
    record(
        f"1-hang-{count}",
        "one gateway of two hangs (SIGSTOP)" if count == 1 else "both gateways hang",
        for_s=HANG_S,
        faults=count,
        worst_gap_s=sms.worst_gap_s,
        mean_recovery_s=recovery_s,
        worst_recovery_s=recovery_s,
        slowest_answer_s=max(sms.latencies_s),
        tries_repeated=sms.failed_tries.total(),
        seed=seed,
        **figures,
    )
