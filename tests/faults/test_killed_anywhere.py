"""Proof 1: each process dies at each point of its work, and nothing is lost.

The points are those of `kill_at`. Two EMMGs and two encryptors work at once all the while.
"""

import itertools
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.exc import OperationalError

from demo.ledger import rfc3339
from portcullis.cycler.asrun import query
from portcullis.scheduler.leadership import LEASE
from portcullis.store.claims import all_claims, claims_of
from portcullis.store.database import database_now, writing
from portcullis.store.partitions import first_id, requests_partitions
from portcullis.store.readings import read
from portcullis.store.schema import device_work, keys, leases, requests
from tests.conftest import MariaDb
from tests.faults.aired import check_states
from tests.faults.boxes import Boxes
from tests.faults.figures import record
from tests.faults.kill_at import FUNCTIONS, WHENS, aim, command_at
from tests.faults.probe import Probe, probe
from tests.faults.scale import IS_FULL
from tests.faults.single import Single
from tests.faults.sms import Sms
from tests.faults.verdict import wrong_boxes

BOXES = 41 if IS_FULL else 13
REACHED_WITHIN_S = 240.0
"""While the cycler dies again and again no cycle is counted, and so no key switches."""
SETTLE_S = 90.0
ASRUN_LACKS_S = 1.0
"""The last second before a death (docs/carousel.md)."""
ASRUN_TURN_S = 1.5
"""What the thread that writes it may wait for its turn on a loaded machine."""
OLD = datetime(2024, 1, 5, 12, tzinfo=UTC)

SCHEDULER = """[scheduler]
product_key_period = "6s"
prepare_ahead = "1s"
air_cycles = 2
chain_epochs = 2
purge_every = "1s"
tombstones_keep = "3s"
reseal_every = "2s"
archive_dir = "{home}/archive"
"""
SHORT = {
    "emmg": ("portcullis.emmg.worker:claim after", "portcullis.emmg.worker:finish commit"),
    "scheduler": (
        "portcullis.scheduler.jobs:drop_slice before",
        "portcullis.store.rotation:go_live commit",
    ),
    "cycler": (
        "portcullis.cycler.stream:Stream._send after",
        "portcullis.cycler.reports:write_first_airings commit",
    ),
}
NOT_COME_BY = {
    *("portcullis.emmg.worker:read_orders commit", "portcullis.emmg.worker:Worker._seal commit"),
    "portcullis.cycler.follower:next_changes commit",
    "portcullis.cycler.stream:Stream._send commit",
    "portcullis.cycler.asrun:AsRunWriter._note commit",
    *(f"portcullis.cycler.asrun:AsRunWriter.write {when}" for when in ("commit", "after")),
}
"""These commit nothing, or return nothing that tells of work."""


def points(room: str) -> tuple[str, ...]:
    """The points at which the processes of a room die."""
    if not IS_FULL:
        return SHORT[room]
    every = (f"{place} {when}" for place in FUNCTIONS[room] for when in WHENS)
    return tuple(point for point in every if point not in NOT_COME_BY)


@dataclass
class House:
    """The head-end under test, and what was measured."""

    single: Single
    boxes: Boxes
    engine: Engine
    claims_back_s: list[float] = field(default_factory=list)
    asrun_lacks_s: list[float] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    dying: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    aimed: dict[str, str] = field(default_factory=dict)

    def aim(self, name: str, point: str) -> None:
        """Have a process die at a point."""
        self.dying[name] = self.single.keeper.doom(name)
        self.aimed[name] = point
        aim(self.single.home / f"{name}.aim", point)

    def await_death(self, name: str) -> float:
        """Wait until it has; monotonic time."""
        try:
            assert self.dying[name].wait(REACHED_WITHIN_S) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            tail = self.single.keeper.tail(name)
            pytest.fail(f"{name} did not come by {self.aimed[name]}\n{tail}")
        return time.monotonic()


@pytest.fixture(scope="module")
def house(mariadb: MariaDb) -> Iterator[House]:
    """One of each and a second EMMG and encryptor; keys rotate every few seconds."""
    with tempfile.TemporaryDirectory(prefix="portcullis-points-", dir="/var/tmp") as directory:
        home = Path(directory)
        single = Single(home, mariadb.new_database(), BOXES)
        sockets = [f"unix:{home}/state/encryptor{number}.sock" for number in ("", "2")]
        both = ", ".join(f'"{socket}"' for socket in sockets)
        single.replace('encryptor = "unix:.*', f"encryptor = [{both}]")
        single.replace('every = "[13]0s"', 'every = "2s"')
        single.replace(r"\[scheduler\]\n", SCHEDULER.format(home=home))
        engine = single.engine()
        prefixes = {
            name: command_at(home / f"{name}.aim") for name in ("emmg", "scheduler", "cycler")
        }
        seconds = {"emmg": {"encryptor": sockets[::-1]}, "encryptor": {"listen": sockets[1]}}
        with single.running(prefixes, seconds) as boxes:
            yield House(single, boxes, engine)
        engine.dispose()


def test_what_is_left_out_and_what_is_chosen_are_points() -> None:
    """A point that no process comes by would be waited for in vain, in the full run alone."""
    places = itertools.chain.from_iterable(FUNCTIONS.values())
    every = {f"{place} {when}" for place in places for when in WHENS}
    assert NOT_COME_BY | set(itertools.chain.from_iterable(SHORT.values())) <= every


@pytest.mark.timeout(1800)
def test_nothing_is_lost_wherever_a_process_dies(house: House, seed: int) -> None:
    """Orders once, boxes right, no number with two states, as-run log whole but for a second."""
    single = house.single
    *loaded, probed = single.devices
    began = time.monotonic()
    with (
        Sms(single.access, single.ledger, loaded, seed=seed, run="p", pause_s=0.5) as sms,
        probe(single.access, house.boxes, single.ledger, probed, house.numbers) as one,
    ):
        with ThreadPoolExecutor(3) as pool:
            rooms = [
                pool.submit(emmg_dies, house),
                pool.submit(scheduler_dies, house, one),
                pool.submit(cycler_dies, house),
            ]
        for room in rooms:
            room.result()
        one.seen()
    for_s = time.monotonic() - began
    single.keeper.wait_ready()
    wrong = wrong_boxes(house.boxes, single.ledger, SETTLE_S)
    assert wrong == {}
    single.verdict(sms)
    sections = check_states(single.home / "out.ts")
    assert sections > 0
    assert live_chains(house.engine) == {1}
    assert list((single.home / "archive").glob("requests-202401*.jsonl.gz"))
    assert max(house.asrun_lacks_s) <= ASRUN_LACKS_S + ASRUN_TURN_S
    record(
        "1-points",
        "kill -9 at each point of EMMG, scheduler and cycler",
        for_s=for_s,
        faults=sum(len(points(room)) for room in SHORT),
        orders=sms.answered,
        lost=0,
        doubled=0,
        boxes_wrong=len(wrong),
        worst_gap_s=sms.worst_gap_s,
        claims_sealed_after_s=max(house.claims_back_s),
        asrun_lacks_s=max(house.asrun_lacks_s),
        sections_compared=sections,
        seed=seed,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("when", WHENS if IS_FULL else ["commit"])
def test_a_rewrap_goes_on_where_it_died(house: House, when: str) -> None:
    """Every key opens after each, and after the second run all are under the new master."""
    single = house.single
    file = single.home / "keys.aim"
    aim(file, f"portcullis.scheduler.master:replace_sealed {when}")
    rotate = single.command("keys", "rotate", "--master")
    died = subprocess.run([*command_at(file), *rotate], check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    single.run("keys", "verify")
    single.run("keys", "rotate", "--master")
    single.run("keys", "verify")
    with house.engine.connect() as connection:
        masters = connection.execute(select(keys.c.master_id).distinct()).scalars().all()
    assert len(masters) == 1


def emmg_dies(house: House) -> None:
    """What it had claimed comes due, and whoever comes first seals it."""
    for point in points("emmg"):
        house.aim("emmg", point)
        died = house.await_death("emmg")
        house.claims_back_s.append(claims_back(house.engine) - died)
        house.single.keeper.wait_back("emmg")


def claims_back(engine: Engine) -> float:
    """Wait until all that is claimed now has been sealed; monotonic time."""
    work = device_work.c
    with engine.connect() as connection:
        [found] = read(connection, all_claims())
        ids = [device_id for one in claims_of(found) for device_id in one.device_ids]
        rows = connection.execute(
            select(work.device_id, work.wanted).where(work.device_id.in_(ids))
        ).all()
    claimed: dict[int, int] = {one.device_id: one.wanted for one in rows}
    end = time.monotonic() + REACHED_WITHIN_S
    while claimed:
        with engine.connect() as connection:
            rows = connection.execute(
                select(work.device_id, work.sealed).where(work.device_id.in_(claimed))
            ).all()
        for one in rows:
            if one.sealed >= claimed[one.device_id]:
                del claimed[one.device_id]
        assert time.monotonic() < end, claimed
        time.sleep(0.02)  # the database does not tell
    return time.monotonic()


def scheduler_dies(house: House, one: Probe) -> None:
    """Its lease is ended by hand: how long another waits for it is for `test_pairs` to say."""
    for point in points("scheduler"):
        house.aim("scheduler", point)
        provoke(house, one, point)
        house.await_death("scheduler")
        with writing(house.engine) as connection:
            connection.execute(
                update(leases)
                .where(leases.c.name == LEASE)
                .values(expires_at=database_now(connection))
            )
        house.single.keeper.wait_back("scheduler")


def provoke(house: House, one: Probe, point: str) -> None:
    """Have the scheduler do what it has no cause for: an old month, a new product, an end."""
    if ":insert_chain " in point:
        product_id = 500 + next(house.numbers)
        one.http.put(f"/products/{product_id}", json={"name": "P"}).raise_for_status()
    elif "tombstone" in point:
        soon = rfc3339(datetime.now(UTC) + timedelta(seconds=2))
        message = {"device_id": one.device_id, "text": "soon over", "duration_s": 1}
        give_up = time.monotonic() + REACHED_WITHIN_S
        one.order("generateosm", message | {"expires_at": soon}, give_up)
    elif ":drop_slice " in point:
        make_old_month(house.engine)


def make_old_month(engine: Engine) -> None:
    """A partition of requests beyond their retention, unless it is there yet."""
    row = {"client_id": "sms", "kind": "adddevice", "body": "{}", "outcome": "malformed"}
    with writing(engine) as connection:
        request_id = first_id(OLD)[:12] + f"{time.monotonic_ns():020x}"
        connection.execute(
            requests.insert().values(row | {"request_id": request_id, "received_at": OLD})
        )
    month = first_id(OLD.replace(month=2, day=1, hour=0))
    give_up = time.monotonic() + REACHED_WITHIN_S
    while "p202401" not in (found := requests_partitions(engine)):
        assert time.monotonic() < give_up, found
        if not found:
            time.sleep(0.1)  # the scheduler's first round makes them
            continue
        name, below = min(found.items(), key=lambda one: one[1])
        with suppress(OperationalError), engine.connect() as connection:  # a lock; tried again
            connection.execute(
                text(
                    f"ALTER TABLE requests REORGANIZE PARTITION {name} INTO (PARTITION p202401"
                    f" VALUES LESS THAN ('{month}'), PARTITION {name} VALUES LESS THAN ('{below}'))"
                )
            )


def cycler_dies(house: House) -> None:
    """The as-run log is looked at before the next process takes it over."""
    asrun = house.single.home / "asrun"
    died = datetime.now(UTC) - timedelta(minutes=1)
    for point in points("cycler"):
        while not any(True for _ in query(asrun, since=died)):
            time.sleep(0.1)  # until the first second has been written
        house.aim("cycler", point)
        house.await_death("cycler")
        last = max(one.aired_at for one in query(asrun, since=died))
        died = datetime.now(UTC)
        house.asrun_lacks_s.append((died - last).total_seconds())
        house.single.keeper.wait_back("cycler")


def live_chains(engine: Engine) -> set[int]:
    """How many chains on air the products have."""
    with engine.connect() as connection:
        return set(
            connection.execute(
                select(func.count())
                .where(
                    keys.c.purpose == "product",
                    keys.c.retired_at.is_(None),
                    keys.c.live_epoch.is_not(None),
                )
                .group_by(keys.c.owner)
            ).scalars()
        )
