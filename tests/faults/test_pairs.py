"""Proof 2: cyclers and schedulers in pairs; whoever dies, hangs or stops, one of them works."""

import os
import signal
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, func, select

from portcullis.cycler.asrun import query
from portcullis.scheduler.leadership import LEASE, TTL_S
from portcullis.store.schema import keys, leases
from tests.conftest import MariaDb, running_mariadb
from tests.faults.aired import check_states
from tests.faults.boxes import Boxes
from tests.faults.figures import record
from tests.faults.kill_at import aim, command_at
from tests.faults.scale import IS_FULL
from tests.faults.single import Single
from tests.faults.sms import Sms

AWAY_S = 30 if IS_FULL else 8
HUNG_S = 25 if IS_FULL else 5
"""Beyond the lease; in full also beyond what a multiplexer waits for an answer to its test."""
AIRS_WITHIN_S = 5.0
"""DESIGN: the other airs within this time of the holder's death (docs/carousel.md)."""
TURN_S = 1.0
"""What a process may wait for its turn on a loaded machine, beyond a lease."""
WAIT_S = 60.0
CYCLERS, SCHEDULERS = ("cycler", "cycler2"), ("scheduler", "scheduler2")
INSERTS = "portcullis.scheduler.jobs:insert_chain before"


def wait_for(holds: Callable[[], bool], what: str) -> None:
    """Wait until another process has done it; it can only be asked."""
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.05)


def other(name: str) -> str:
    """The second of the pair."""
    return name.rstrip("2") if name.endswith("2") else f"{name}2"


@dataclass
class Pairs:
    """Two cyclers and two schedulers on a database of their own."""

    single: Single
    mariadb: MariaDb
    engine: Engine
    most_streams: float = 0.0
    """The most that the multiplexer has had open at once, whenever it was asked."""

    def leader(self, lease: str) -> str | None:
        """The process that holds a lease; None while it is one that is dead."""
        with self.engine.connect() as connection:
            holder = connection.execute(
                select(leases.c.holder).where(leases.c.name.startswith(lease))
            ).scalar_one()
        pid = int(holder.split(":")[1])
        names = [*CYCLERS, *SCHEDULERS]
        return next((name for name in names if self.single.pid(name) == pid), None)

    def airs(self) -> str:
        """The cycler that airs, once it does."""
        wait_for(lambda: self.leader("stream:") is not None, "a holder")
        name = self.leader("stream:")
        assert name is not None
        wait_for(lambda: self.metric(name, "holds_lease") == 1, "the holder airs")
        return name

    def metric(self, name: str, what: str) -> float:
        """A metric of a cycler."""
        return self.single.metric(name, f"portcullis_cycler_{what}")

    def airings(self, name: str, since: datetime) -> list[datetime]:
        """When a cycler handed something to the multiplexer."""
        directory = self.single.home / ("asrun2" if name.endswith("2") else "asrun")
        return sorted(one.aired_at for one in query(directory, since=since))

    def first_airing(self, name: str, since: datetime) -> datetime:
        """Its first one since, once it is there."""
        wait_for(lambda: bool(self.airings(name, since)), f"{name} airs")
        return self.airings(name, since)[0]

    def send(self, name: str, number: signal.Signals) -> datetime:
        """Send a process a signal; when."""
        os.kill(self.single.pid(name), number)
        return datetime.now(UTC)

    @contextmanager
    def left_ended(self, name: str) -> Iterator[None]:
        """Not start a process again for as long."""
        self.single.keeper.parts[name].is_held = True
        yield
        self.single.keeper.let(name)
        self.single.keeper.wait_back(name)


@pytest.fixture(scope="module")
def pairs() -> Iterator[Pairs]:
    """A head-end with boxes on air all the time, and an eye on what the multiplexer has open."""
    with (
        running_mariadb() as mariadb,
        tempfile.TemporaryDirectory(prefix="portcullis-pairs-", dir="/var/tmp") as directory,
    ):
        home = Path(directory)
        single = Single(home, mariadb.new_database(), 20)
        single.replace('every = "[13]0s"', 'every = "2s"')
        [stream] = tomllib.loads(single.config)["cycler"]["stream"]
        seconds = {
            "cycler": {"asrun_dir": f"{home}/asrun2", "stream": [stream | {"data_channel_id": 2}]},
            "scheduler": {},
        }
        prefixes = {name: command_at(home / f"{name}.aim") for name in SCHEDULERS}
        engine = single.engine()
        ending = threading.Event()
        with single.running(prefixes, seconds) as boxes:
            found = Pairs(single, mariadb, engine)
            fill(single, boxes)
            watcher = threading.Thread(target=watch, args=(found, ending), daemon=True)
            watcher.start()
            yield found
            ending.set()
            watcher.join()
        engine.dispose()


def fill(single: Single, boxes: Boxes) -> None:
    """Have every box on air."""
    with Sms(single.access, single.ledger, single.devices, seed=1, run="f", pause_s=0.2) as sms:
        wait_for(lambda: sms.answered > 3 * len(single.devices), "orders")
    wait_for(lambda: boxes.repeats() > len(single.devices), "the carousel turns")


def watch(pairs: Pairs, ending: threading.Event) -> None:
    """Ask the multiplexer over and over how many streams it has."""
    while not ending.wait(0.2):
        streams = pairs.single.metric("mux", "portcullis_mux_stream_open")
        pairs.most_streams = max(pairs.most_streams, streams)


def one_stream(pairs: Pairs) -> None:
    """One stream at a time, and no state older than one before it."""
    assert pairs.most_streams == 1
    assert check_states(pairs.single.home / "out.ts") > 0


@pytest.mark.timeout(200)
def test_the_other_airs_within_5_s_of_the_holders_death(pairs: Pairs) -> None:
    """`kill -9` of the cycler that airs."""
    holder = pairs.airs()
    with pairs.left_ended(holder):
        pairs.single.keeper.kill(holder)
        died = datetime.now(UTC)
        silent_s = (pairs.first_airing(other(holder), died) - died).total_seconds()
    assert silent_s < AIRS_WITHIN_S
    one_stream(pairs)
    record("2-pair-killed", "kill -9 of the cycler that airs", faults=1, worst_recovery_s=silent_s)


@pytest.mark.timeout(200)
def test_a_stop_hands_over_at_once(pairs: Pairs) -> None:
    """SIGTERM: the other follows the last airing of the one that ends."""
    holder = pairs.airs()
    with pairs.left_ended(holder):
        told = datetime.now(UTC)
        pairs.single.keeper.stop(holder)
        first = pairs.first_airing(other(holder), told)
        wait_for(lambda: pairs.leader("stream:") != holder, "the lease let go of")
        last = max(pairs.airings(holder, told - timedelta(seconds=10)))
    assert last < first
    assert (first - told).total_seconds() < AIRS_WITHIN_S
    one_stream(pairs)
    record(
        "2-pair-stopped",
        "SIGTERM of the cycler that airs",
        faults=1,
        worst_recovery_s=(first - told).total_seconds(),
        silent_s=(first - last).total_seconds(),
    )


@pytest.mark.timeout(300)
def test_the_holder_airs_on_while_the_database_is_away(pairs: Pairs) -> None:
    """And keeps its lease: the standby does not take over, nor does it air meanwhile."""
    holder = pairs.airs()
    pairs.mariadb.kill()
    away = datetime.now(UTC)
    time.sleep(AWAY_S)
    assert pairs.metric(holder, "lease_unconfirmed") == 1
    pairs.mariadb.start()
    back = datetime.now(UTC)
    wait_for(lambda: pairs.metric(holder, "lease_unconfirmed") == 0, "the lease renewed")
    wait_for(lambda: bool(pairs.airings(holder, back + timedelta(seconds=2))), "it airs on")
    assert pairs.leader("stream:") == holder
    assert pairs.airings(other(holder), away) == []
    aired = [away, *(one for one in pairs.airings(holder, away) if one < back), back]
    gap_s = max((b - a).total_seconds() for a, b in pairwise(aired))
    assert gap_s < AIRS_WITHIN_S
    one_stream(pairs)
    record(
        "2-pair-database",
        f"database away for {AWAY_S} s under the cycler that airs",
        for_s=AWAY_S,
        faults=1,
        worst_gap_on_air_s=gap_s,
    )


@pytest.mark.timeout(300)
def test_a_holder_that_hung_gives_way(pairs: Pairs) -> None:
    """SIGSTOP with its connection open: the multiplexer keeps the other out until it is free.

    When the holder goes on it finds its lease gone within its next renewal: for as long both hold
    it, and one airs. PortcullisStreamHeldTwice (30 s) has no cause to fire.
    """
    holder = pairs.airs()
    second = other(holder)
    lost_before = pairs.metric(holder, "lease_lost_total")
    hung = pairs.send(holder, signal.SIGSTOP)
    wait_for(lambda: pairs.metric(second, "holds_lease") == 1, "the lease taken")
    refused = pairs.metric(second, "link_events_total")
    time.sleep(max(hung.timestamp() + HUNG_S - time.time(), 0))
    goes_on = pairs.send(holder, signal.SIGCONT)
    wait_for(lambda: pairs.metric(holder, "holds_lease") == 0, "it stands by")
    stood_by = datetime.now(UTC)
    first = pairs.first_airing(second, hung)
    assert pairs.metric(holder, "lease_lost_total") == lost_before + 1
    assert pairs.leader("stream:") == second
    assert pairs.airings(holder, stood_by + timedelta(seconds=TURN_S)) == []
    if not IS_FULL:  # it is the multiplexer that keeps the other out
        assert refused > 0
        assert first > goes_on
    one_stream(pairs)
    record(
        "2-pair-hung",
        f"the cycler that airs hangs for {HUNG_S} s",
        for_s=HUNG_S,
        faults=1,
        worst_recovery_s=(first - hung).total_seconds(),
        held_twice_s=(stood_by - goes_on).total_seconds(),
    )


@pytest.mark.timeout(300)
def test_a_scheduler_that_hung_does_nothing_with_a_lost_lease(pairs: Pairs) -> None:
    """It hangs between asking whether it leads and the commit, until the other leads."""
    single = pairs.single
    hung = pairs.leader(LEASE)
    assert hung is not None
    second = other(hung)
    with httpx.Client(base_url=single.access.url, timeout=30) as http:
        http.headers["Authorization"] = f"Bearer {single.access.token(http)}"
        for name in SCHEDULERS:  # the second too, so that only the first could do it
            aim(single.home / f"{name}.aim", INSERTS, signal.SIGSTOP)
        http.put("/products/900", json={"name": "P"}).raise_for_status()
        wait_for(lambda: is_stopped(single.pid(hung)), "the leader hangs")
        began = time.monotonic()
        wait_for(lambda: pairs.leader(LEASE) == second, "the other leads")
        leads_after_s = time.monotonic() - began
        wait_for(lambda: is_stopped(single.pid(second)), "the other comes there too")
        pairs.send(hung, signal.SIGCONT)
        wait_for(lambda: "no longer ours" in said(single, hung), "it is refused the commit")
        assert chains(pairs.engine, 900) == 0
        pairs.send(second, signal.SIGCONT)
        wait_for(lambda: chains(pairs.engine, 900) == 1, "whoever leads makes the chain")
    assert leads_after_s < TTL_S + TURN_S
    record(
        "2-pair-scheduler-hung",
        "the scheduler that leads hangs inside a job",
        faults=1,
        worst_recovery_s=leads_after_s,
    )


@pytest.mark.timeout(200)
def test_another_scheduler_leads_within_the_lease_of_a_death(pairs: Pairs) -> None:
    """`kill -9` of the one that leads."""
    leader = pairs.leader(LEASE)
    assert leader is not None
    with pairs.left_ended(leader):
        pairs.single.keeper.kill(leader)
        began = time.monotonic()
        wait_for(lambda: pairs.leader(LEASE) == other(leader), "the other leads")
        leads_after_s = time.monotonic() - began
    assert leads_after_s < TTL_S + TURN_S
    record(
        "2-pair-scheduler-killed",
        "kill -9 of the scheduler that leads",
        faults=1,
        worst_recovery_s=leads_after_s,
    )


def is_stopped(pid: int) -> bool:
    """Whether a process hangs, by SIGSTOP."""
    return (
        Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T"
    )


def said(single: Single, name: str) -> str:
    """A process's log."""
    return (single.home / f"{name}.log").read_text(encoding="utf-8")


def chains(engine: Engine, product_id: int) -> int:
    """How many key chains a product has."""
    with engine.connect() as connection:
        return connection.execute(
            select(func.count()).where(keys.c.purpose == "product", keys.c.owner == product_id)
        ).scalar_one()
