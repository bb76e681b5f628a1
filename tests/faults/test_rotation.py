"""Rotation of a product's key under load, with services killed: who can show what, at any moment.

A box has a product at t if it is active, in its window, and holds the epoch of t.
"""

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from demo.ledger import rfc3339
from portcullis.store.database import engine_for
from portcullis.store.rekey import Progress, read_rotations
from portcullis.store.schema import device_work, emms, keys
from stbsim.box import Box
from stbsim.emm import derive_product_key
from stbsim.receiver import Receiver
from tests.cluster import Cluster
from tests.faults.conftest import database_section, running
from tests.faults.figures import record
from tests.faults.headend import HeadEnd, Plan
from tests.faults.population import add_vendor_keys, order_all
from tests.faults.scale import IS_FULL
from tests.faults.sms import BATCH_LINES, PRODUCTS, ledger_of
from tests.faults.sms_apart import sms_apart
from tests.faults.system import System
from tests.ports import free_ports
from tests.scrambler import Live, Scrambler

PRODUCT = 101
BOXES = 50_000 if IS_FULL else 300
GROUPS = (
    {"loyal": 450, "ordering": 400, "leaving": 50, "thief": 50, "late thief": 25, "stranger": 25}
    if IS_FULL
    else {"loyal": 24, "ordering": 16, "leaving": 6, "thief": 5, "late thief": 4, "stranger": 5}
)
"""Boxes that watch. All but strangers have the product at first; the loyal keep it throughout."""

ORDERS_PER_S = 240 if IS_FULL else 20
BATCHES = 0.9
"""Of the times that boxes are ordered for: an order of its own costs two cores too much."""
BOXES_A_BATCH = 8
KILL_EVERY_S = 10.0 if IS_FULL else 3.0
STREAM_KBIT_S = 20_000
PERIODS = {"at rest": "30d", "rotating": "120s" if IS_FULL else "8s"}
RECENT, STEADY = ("10s", "10s") if IS_FULL else ("2s", "1s")
LEAVING_S = 20 if IS_FULL else 8
LOOK_S = 0.2
LIMIT_S = 300.0


def name_boxes() -> dict[str, list[str]]:
    """The boxes of each group, by their ids."""
    numbers = iter(range(1001, 1001 + sum(GROUPS.values())))
    return {group: [str(next(numbers)) for _ in range(many)] for group, many in GROUPS.items()}


def adapt(head_end: HeadEnd) -> None:
    """A stream of 20 Mbit/s, keys that stay for now, and many more boxes than those that watch."""
    rotation = f'product_key_period = "{PERIODS["at rest"]}"\nprepare_ahead = "1s"\nair_cycles = 2'
    changes = {
        "cycler": {
            "bandwidth_kbit_s = 1000": f"bandwidth_kbit_s = {STREAM_KBIT_S}",
            'every = "10s"': f'every = "{RECENT}"',
            'every = "20s"': f'every = "{STEADY}"',
        },
        "mux": {
            "bitrate_kbit_s = 2000": f"bitrate_kbit_s = {STREAM_KBIT_S + 1000}\n"
            f"max_bandwidth_kbit_s = {STREAM_KBIT_S}"
        },
        "scheduler": {"[scheduler]": f"[scheduler]\n{rotation}"},
    }
    for name, lines in changes.items():
        for one in head_end.names[name]:
            text = head_end.config(one).read_text(encoding="utf-8")
            for old, new in lines.items():
                assert old in text
                text = text.replace(old, new)
            head_end.config(one).write_text(text, encoding="utf-8")
    add_vendor_keys(head_end.home / "state" / "devices.csv", unwatched())


def unwatched() -> list[str]:
    """The boxes that are in the database alone."""
    return [str(number) for number in range(10**6, 10**6 + BOXES - sum(GROUPS.values()))]


@pytest.fixture
def crowd(cluster_servers: Cluster, request: pytest.FixtureRequest) -> Iterator[System]:
    """A head-end on a cluster for many boxes, of which some watch."""
    [boxes_port] = free_ports(1)
    plan = Plan(database_section(cluster_servers, lambda _: cluster_servers.hosts), boxes_port)
    watching = [one for group in name_boxes().values() for one in group]
    with running(cluster_servers, plan, request.session, watching, adapt) as system:
        yield system


def opens(box: Box, live: Live) -> bool:
    """Whether a cracked box, which keeps no window, could show what is scrambled under a key."""
    return any(
        derive_product_key(one.key, PRODUCT, one.epoch, live.epoch % 256) == live.key
        for one in box.entitlements
        if one.product_id == PRODUCT
    )


@dataclass
class Watch:
    """Looks at scrambler and boxes again and again, and kills a service now and then.

    Attributes:
        without: boxes that lacked what they are entitled to, when they were looked at.
        wrongly: boxes that could show what they are not entitled to.
        switches: what content was scrambled under, one after the other.
    """

    system: System
    engine: Engine
    boxes: dict[str, list[str]]
    chance: random.Random
    thieves: list[Box] = field(default_factory=list)
    without: set[str] = field(default_factory=set)
    wrongly: set[str] = field(default_factory=set)
    switches: list[Live] = field(default_factory=list)
    killed_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        master = self.system.head_end.home / "master.json"
        self.scrambler = Scrambler(self.engine, master, PRODUCT)

    def until(self, done: Callable[[], bool]) -> None:
        """Look and kill until something is so."""
        end = time.monotonic() + LIMIT_S
        keeper = self.system.head_end.keeper
        while not done():
            assert time.monotonic() < end, "it takes too long"
            if time.monotonic() - self.killed_at > KILL_EVERY_S:
                self.killed_at = time.monotonic()
                keeper.kill(self.chance.choice([*self.system.head_end.services, "haproxy"]))
            self.look()
            time.sleep(LOOK_S)  # a table and a stream are looked at

    def look(self) -> Live:
        """Who lacks, who has too much, under what is live now."""
        live = self.scrambler.live()
        assert live is not None
        if live not in self.switches:
            self.switches.append(live)
        self.without |= self.system.boxes.look(lambda receiver: self.dark(receiver, live, "loyal"))
        return live

    def look_after_retirement(self, *groups: str) -> None:
        """What thieves and these groups may not show, once the keys of before are retired."""
        live = self.look()
        others = [one for group in groups for one in self.boxes[group]]
        deaf = {str(box.device_id) for box in self.thieves if opens(box, live)}
        self.wrongly |= deaf | self.system.boxes.look(
            lambda receiver: {one for one in others if opens(receiver.boxes[int(one)], live)}
        )

    def dark(self, receiver: Receiver, live: Live, group: str) -> set[str]:
        """Boxes of a group that could not show what is live."""
        return {
            one
            for one in self.boxes[group]
            if receiver.boxes[int(one)].product_key(PRODUCT, live.epoch % 256) != live.key
        }


def is_retired(engine: Engine, first_epoch: int) -> bool:
    """Whether a chain has been retired."""
    with engine.connect() as connection:
        row = select(keys.c.retired_at).where(
            keys.c.purpose == "product", keys.c.owner == PRODUCT, keys.c.first_epoch == first_epoch
        )
        return connection.execute(row).scalar_one() is not None


def is_sealed(engine: Engine) -> bool:
    """Whether every box of the database has its state."""
    with engine.connect() as connection:
        dirty = select(func.count()).where(device_work.c.dirty_at.is_not(None))
        states = select(func.count()).where(emms.c.message_id == 0)
        return (
            connection.execute(dirty).scalar_one() == 0
            and connection.execute(states).scalar_one() >= BOXES
        )


def wait(done: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < end
        time.sleep(LOOK_S)  # a table is looked at


def grants(device_ids: Sequence[str], **window: str) -> list[dict[str, Any]]:
    """Orders that give them the product."""
    op = {"op": "addentitlement", "product_id": PRODUCT} | window
    return [op | {"device_id": device_id} for device_id in device_ids]


def revoke(watch: Watch, group: str) -> None:
    """End the rights of boxes that hear nothing from now on, and could show it until now."""
    stolen = watch.system.boxes.deafen(watch.boxes[group])
    live = watch.look()
    assert [box.device_id for box in stolen if not opens(box, live)] == []
    watch.thieves += stolen
    orders = [
        {"op": "removeentitlement", "device_id": one, "product_id": PRODUCT}
        for one in watch.boxes[group]
    ]
    order_all(watch.system.head_end.access, watch.system.ledger, orders)


def set_period(head_end: HeadEnd, period: str) -> None:
    """Have the schedulers change keys so often: an operator's change of the configuration."""
    for name in head_end.names["scheduler"]:
        path = head_end.config(name)
        text = path.read_text(encoding="utf-8")
        line = f'product_key_period = "{PERIODS[period]}"'
        path.write_text(re.sub("product_key_period = .*", line, text), encoding="utf-8")
        head_end.keeper.stop(name)


def rotation_of(engine: Engine, live: Live) -> Progress:
    """How the rotation went that led to an epoch."""
    (found,) = (
        one
        for one in read_rotations(engine)
        if (one.product_id, one.seal_epoch) == (PRODUCT, live.epoch)
    )
    return found


@pytest.mark.timeout(1800)
def test_rotation_leaves_nobody_dark_and_shuts_out_who_has_no_right(
    crowd: System, seed: int
) -> None:
    """The next epoch of a chain, then a new chain, while orders come and services die."""
    head_end, boxes = crowd.head_end, name_boxes()
    everyone = [one for group in boxes.values() for one in group] + unwatched()
    entitled = [one for one in everyone if one not in set(boxes["stranger"])]
    adds = [{"op": "adddevice", "device_id": one} for one in everyone]
    for orders in (adds, grants(entitled)):
        order_all(head_end.access, crowd.ledger, orders)
    engine = engine_for(crowd.cluster.url("portcullis_migrate"), pool_size=1)
    wait(lambda: is_sealed(engine))
    watch = Watch(crowd, engine, boxes, random.Random(seed))
    assert crowd.boxes.wait(
        lambda receiver: all(box.entitlements for box in entitled_of(receiver, boxes)), 60
    )
    began = time.monotonic()
    orders_each_time = 1 + BATCHES * (BOXES_A_BATCH * BATCH_LINES - 1)
    pause_s = len(boxes["ordering"]) / BOXES_A_BATCH * orders_each_time / ORDERS_PER_S
    kills_before = head_end.keeper.kills
    with sms_apart(
        head_end.access,
        crowd.ledger,
        boxes["ordering"],
        seed=seed,
        pause_s=pause_s,
        batches=BATCHES,
        boxes_a_batch=BOXES_A_BATCH,
    ) as sms:
        first = watch.look()
        # Who was given nothing is seen to be dark: the look can tell.
        assert crowd.boxes.look(lambda receiver: watch.dark(receiver, first, "stranger")) == set(
            boxes["stranger"]
        )
        revoke(watch, "thief")
        soon = datetime.now(UTC) + timedelta(seconds=LEAVING_S)
        leaving = grants(boxes["leaving"], ends_at=rfc3339(soon))
        order_all(head_end.access, crowd.ledger, leaving)
        set_period(head_end, "rotating")
        watch.until(lambda: watch.switches[-1].epoch > first.epoch)
        watch.look_after_retirement("stranger")
        step = rotation_of(engine, watch.switches[-1])

        set_period(head_end, "at rest")
        revoke(watch, "late thief")
        watch.until(lambda: datetime.now(UTC) > soon)
        head_end.keeper.wait_ready()
        before = watch.look()
        rotate = ("keys", "rotate", "--product", str(PRODUCT), "--now")
        head_end.run(*rotate, config=head_end.config("keys"))
        watch.until(lambda: watch.switches[-1].chain > before.chain)
        watch.until(lambda: is_retired(engine, before.chain))
        watch.look_after_retirement("stranger", "leaving")
        renewal = rotation_of(engine, watch.switches[-1])
        lasted_s = time.monotonic() - began
    assert (watch.without, watch.wrongly) == (set(), set())
    figures = crowd.verdict(sms)
    check_products(watch)
    engine.dispose()
    record(
        "rotation",
        f"rotation with {BOXES} boxes, a service killed every {KILL_EVERY_S:g} s",
        for_s=lasted_s,
        faults=head_end.keeper.kills - kills_before,
        orders_per_s=sms.answered / lasted_s,
        tries_repeated=sms.failed_tries,
        boxes_on_air=sum(GROUPS.values()),
        boxes_without=len(watch.without),
        boxes_with_wrongly=len(watch.wrongly),
        **told("next epoch", step),
        **told("new chain", renewal),
        seed=seed,
        **figures,
    )


def check_products(watch: Watch) -> None:
    """Of all products, each box that orders kept changing can show what it may, and no other."""
    ordered = ledger_of(watch.system.ledger)
    for product_id in PRODUCTS:
        live = Scrambler(watch.engine, watch.scrambler.master_key_file, product_id).live()
        assert live is not None
        now = datetime.now(UTC)

        def shown(
            receiver: Receiver, live: Live = live, product_id: int = product_id
        ) -> dict[str, bool]:
            return {
                one: receiver.boxes[int(one)].product_key(product_id, live.epoch % 256) == live.key
                for one in watch.boxes["ordering"]
            }

        may = {}
        for one in watch.boxes["ordering"]:
            start, end = ordered.boxes[one].products.get(product_id, (now, now))
            may[one] = ordered.boxes[one].active and start <= now < end
        assert watch.system.boxes.look(shown) == may


def entitled_of(receiver: Receiver, boxes: dict[str, list[str]]) -> list[Box]:
    """The boxes that watch and have been given the product."""
    groups = (ids for group, ids in boxes.items() if group != "stranger")
    return [receiver.boxes[int(one)] for ids in groups for one in ids]


def told(what: str, rotation: Progress) -> dict[str, float]:
    """The figures of a rotation."""
    assert rotation.sealed_at is not None
    assert rotation.switched_at is not None
    assert rotation.skipped == 0
    begun = rotation.begun_at
    return {
        f"{what}_emms": rotation.sealed,
        f"{what}_rekey_s": (rotation.sealed_at - begun).total_seconds(),
        f"{what}_switch_s": (rotation.switched_at - begun).total_seconds(),
    }
