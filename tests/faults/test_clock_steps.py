"""Proof 4: the wall clock steps by an hour and back, under load; no other clock is touched.

Of the services alone, as where one NTP server goes wrong, and of the database with them.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, select, text

from demo.ledger import rfc3339
from portcullis.store.database import engine_for
from portcullis.store.migrate import migrate
from portcullis.store.schema import emms, leases
from tests.cluster import Cluster
from tests.faults.clocks import SteppingClock, tidied
from tests.faults.conftest import database_section, running
from tests.faults.figures import record
from tests.faults.headend import Plan
from tests.faults.probe import Probe
from tests.faults.scale import IS_FULL
from tests.faults.sms import PRODUCTS, Sms
from tests.faults.system import PROBE, System
from tests.ports import free_ports

HOUR_S = 3600
STEPS_S = [HOUR_S, -HOUR_S] if IS_FULL else [HOUR_S]
WHOLE = [False, True] if IS_FULL else [True]
AWAY_S = 30.0 if IS_FULL else 2.0
SOON_S = 180.0
PAUSE_S = 0.5 if IS_FULL else 4.0
PURGED = 'portcullis_scheduler_jobs_total{result="done",task="purge"}'


@dataclass
class Stepping:
    """A head-end and a database, each with a clock that the test sets."""

    system: System
    services: SteppingClock
    database: SteppingClock
    engine: Engine

    def set(self, ahead_s: int, *, whole: bool) -> None:
        """Set the services' clock; `whole`: the database's, too."""
        self.services.set(ahead_s)
        if whole:
            self.database.set(ahead_s)

    def said(self, name: str) -> dict[str, dict[str, str]]:
        """What a service says at `/readyz`."""
        port = self.system.head_end.monitors[name]
        answer = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=20)
        said: dict[str, dict[str, str]] = answer.json()
        return said

    def say(self, about: Callable[[dict[str, dict[str, str]]], bool]) -> float:
        """Wait until every service says so; returns the seconds it took."""
        names = self.system.head_end.services
        return wait_for(lambda: all(about(self.said(name)) for name in names))

    def metric(self, room: str, series: str) -> float:
        """The sum of a series over the processes of a room."""
        total = 0.0
        for name in self.system.head_end.names[room]:
            port = self.system.head_end.monitors[name]
            lines = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text.splitlines()
            total += sum(
                float(line.rpartition(" ")[2]) for line in lines if line.startswith(series)
            )
        return total

    def holders(self) -> dict[str, int]:
        """How many hold each lease: as the table has it now, and as the processes believe."""
        with self.engine.connect() as connection:
            live = leases.c.expires_at > text("UTC_TIMESTAMP(6)")
            names = connection.execute(select(leases.c.name).where(live)).scalars().all()
        return {
            "leases": len(names),
            "leaders": int(self.metric("scheduler", "portcullis_scheduler_leading")),
            "airing": int(self.metric("cycler", "portcullis_cycler_holds_lease")),
        }

    def is_on_air(self, message_id: int) -> bool:
        """Whether a message's EMM is no tombstone."""
        found = select(emms.c.tombstone).where(emms.c.message_id == message_id)
        with self.engine.connect() as connection:
            return connection.execute(found).scalars().all() == [0]


@pytest.fixture(scope="module")
def stepping(request: pytest.FixtureRequest) -> Iterator[Stepping]:
    """Servers of its own: nobody else's clock may go wrong."""
    with tempfile.TemporaryDirectory(prefix="portcullis-clocks-", dir="/var/tmp") as home, tidied():
        Path(home).chmod(0o755)
        services, database = (SteppingClock(Path(home) / name) for name in ("services", "database"))
        cluster = Cluster()
        for node in cluster.nodes.values():
            node.environ |= database.environ
        with cluster:
            engine = engine_for(cluster.url("portcullis_migrate"), pool_size=1)
            migrate(engine)
            cluster.grant()
            [boxes_port] = free_ports(1)
            section = database_section(cluster, lambda _room: cluster.hosts)
            plan = Plan(section, boxes_port, environ=services.environ)
            with running(cluster, plan, request.session) as system:
                yield Stepping(system, services, database, engine)
            engine.dispose()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("ahead_s", STEPS_S)
@pytest.mark.parametrize("whole", WHOLE, ids=lambda whole: "all" if whole else "services")
def test_the_clock_steps_an_hour_and_back(
    stepping: Stepping, seed: int, ahead_s: int, *, whole: bool
) -> None:
    """It is said everywhere; nothing is lost, nor taken for over; one leads and one airs."""
    system = stepping.system
    with system.load(seed, PAUSE_S) as sms, system.probe() as probe:
        message_id = give_half_an_hour(system, probe)
        sms.reset_gap()
        stepping.set(ahead_s, whole=whole)
        said_s = stepping.say(lambda said: "clock" in said["degraded"])
        steps = stepping.metric("mux", "portcullis_clock_steps_total")
        go_on(sms, AWAY_S)
        if whole:
            probe.order("addentitlement", {"device_id": PROBE, "product_id": PRODUCTS[2]})
            probe.seen()
        else:
            ask_without_sealing(stepping)
        purges = stepping.metric("scheduler", PURGED)
        wait_for(lambda: stepping.metric("scheduler", PURGED) >= purges + 2)
        wait_for(lambda: stepping.holders() == {"leases": 2, "leaders": 1, "airing": 1})
        stepping.set(0, whole=whole)
        back_at = time.monotonic()
        stepping.say(lambda said: not said["degraded"] and not said["failed"])
        recovery_s = probe.seen() - back_at
        go_on(sms, AWAY_S)
        wait_for(lambda: stepping.holders() == {"leases": 2, "leaders": 1, "airing": 1})
        assert stepping.is_on_air(message_id)
        if whole:  # sealed again since: a right from then on waits for no clock
            assert holds_now(system, PRODUCTS[2])
            probe.order("removeentitlement", {"device_id": PROBE, "product_id": PRODUCTS[2]})
        probe.order("removeosm", {"message_id": message_id})
    assert steps >= 1
    figures = system.verdict(sms)
    ids = "database" if whole else "services"
    whose = "services and database" if whole else "all services"
    way = "forward" if ahead_s > 0 else "back"
    record(
        f"4-clock-{ids}-{way}",
        f"clocks of {whose} an hour {way}, and right again",
        for_s=AWAY_S,
        faults=2,
        worst_gap_s=sms.worst_gap_s,
        mean_recovery_s=recovery_s,
        worst_recovery_s=recovery_s,
        said_within_s=said_s,
        tries_repeated=sms.failed_tries.total(),
        seed=seed,
        **figures,
    )


def give_half_an_hour(system: System, probe: Probe) -> int:
    """Rights and a message that end while the clock is ahead, and do not; the message's id."""
    ends_at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=30)
    box = {"device_id": PROBE}
    until = rfc3339(ends_at)
    probe.order("addentitlement", box | {"product_id": PRODUCTS[1], "ends_at": until})
    shown = {"text": "half an hour", "duration_s": 0, "expires_at": until}
    message_id: int = probe.order("generateosm", box | shown)["message_id"]
    assert system.boxes.wait(
        lambda receiver: message_id in receiver.boxes[int(PROBE)].messages,
        SOON_S,
    )
    return message_id


def holds_now(system: System, product_id: int) -> bool:
    """Whether the probe's box has a product without a start that lies ahead."""
    held = system.boxes.hold(int(time.time()))[PROBE]
    products: dict[str, dict[str, str | None]] = held["products"]
    return str(product_id) in products and products[str(product_id)]["starts_at"] is None


def ask_without_sealing(stepping: Stepping) -> None:
    """Sealing has stopped: a number by the wrong clock would lock boxes out. It is said why."""
    for name in stepping.system.head_end.names["emmg"]:
        wait_for(lambda name=name: "clocks" in json.dumps(stepping.said(name)["failed"]))
    assert stepping.metric("emmg", "portcullis_emmg_clock_difference_seconds") > HOUR_S - 60


def go_on(sms: Sms, seconds: float) -> None:
    """Let orders come for a while: all the time some are answered."""
    before = sms.answered
    time.sleep(seconds)
    wait_for(lambda: sms.answered > before)


def wait_for(holds: Callable[[], bool]) -> float:
    """Wait until a monitoring port or a table tells so; returns the seconds it took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < SOON_S
        time.sleep(0.1)  # they are asked, they do not tell
    return time.monotonic() - started
