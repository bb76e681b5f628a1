"""Proof 2: the database's primary is killed under load, and a replica takes its place.

Recovery: from the primary's death until the first 2xx after it, the promotion by
`deploy/mariadb/cluster` (docs/operations/failover.md) included. With a replica dead too, the new
primary takes no write before the old one follows it.
"""

import time

import pytest

from tests.faults.figures import record
from tests.faults.scale import IS_FULL
from tests.faults.sms import Sms, wait_for_orders
from tests.faults.system import System

WITHOUT_REPLICA = [False, True] * 3 if IS_FULL else [True]
LOAD_S = 5.0 if IS_FULL else 1.0


@pytest.mark.timeout(900)
def test_the_primary_may_die_and_a_replica_before_it(system: System, seed: int) -> None:
    """Every 2xx is still there; the dead come back as replicas."""
    gaps_s, promotions_s = [], []
    with system.load(seed) as sms:
        for is_replica_dead in WITHOUT_REPLICA:
            time.sleep(LOAD_S)  # what is in flight when it dies is the point
            gap_s, promotion_s = fail_over(system, sms, is_replica_dead=is_replica_dead)
            gaps_s.append(gap_s)
            promotions_s.append(promotion_s)
        wait_for_orders(sms)
    figures = system.verdict(sms)
    record(
        "2-primary",
        "kill -9 of the database primary, every other time with a replica dead before it",
        faults=len(gaps_s) + sum(WITHOUT_REPLICA),
        worst_gap_s=max(gaps_s),
        mean_recovery_s=sum(gaps_s) / len(gaps_s),
        worst_recovery_s=max(gaps_s),
        worst_promotion_s=max(promotions_s),
        tries_repeated=sms.failed_tries.total(),
        seed=seed,
        **figures,
    )


def fail_over(system: System, sms: Sms, *, is_replica_dead: bool) -> tuple[float, float]:
    """Kill the primary, promote, bring the dead back; seconds without 2xx, and of the promotion."""
    cluster = system.cluster
    dead = cluster.primary
    missing, new = (name for name in cluster.nodes if name != dead)
    without = []
    wait_for_orders(sms)
    if is_replica_dead:
        cluster.kill(missing)
        wait_for_orders(sms)  # acknowledged by the other replica, so `promote` may do without it
        without = ["--without", cluster.nodes[missing].address]
    sms.reset_gap()
    cluster.kill(dead)
    died_at = time.monotonic()
    cluster.promote(new, *without)
    promotion_s = time.monotonic() - died_at
    cluster.start_replaced(dead)
    assert cluster.execute("SELECT @@read_only AS r", dead) == [{"r": 1}]
    cluster.rejoin(dead)
    wait_for_orders(sms, 1)
    if is_replica_dead:
        cluster.start(missing)
        cluster.rejoin(missing)
    return sms.worst_gap_s, promotion_s
