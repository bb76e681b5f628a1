"""The whole head-end at work: all parts in their numbers, watched, broken, mended, reckoned up."""

import csv
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from stbsim.receiver import Receiver
from tests.cluster import Cluster
from tests.faults.conftest import database_section, running
from tests.faults.headend import Plan
from tests.faults.sms import PRODUCTS, Sms, ledger_of, read_ledger, wait_for_orders
from tests.faults.system import PROBE, System
from tests.ports import free_ports
from tests.system.desk import Desk
from tests.system.monitoring import AIRING, Monitoring, dashboards_answered

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

BOXES = [str(number) for number in range(1001, 1201)]
COUNTS = {
    "encryptor": 2,
    "mux": 1,
    "scheduler": 2,
    "emmg": 2,
    "cycler": 2,
    "gateway": 2,
    "auditor": 1,
}
ROTATED = PRODUCTS[0]
SEED = 1
PAUSE_S = 4.0
"""Between the orders of a box: fifty a second in all."""
WAIT_S = 240.0
_EXPECTED = "PortcullisWatchdog|PortcullisCertificateExpiring|PortcullisDiskFilling"
"""What this site has cause for: its certificate has a week left, its disk is the test machine's."""


@dataclass
class Site:
    """The head-end with its boxes, who watches it, and who operates it."""

    system: System
    monitoring: Monitoring
    desk: Desk


@pytest.fixture(scope="module")
def site(cluster_servers: Cluster, request: pytest.FixtureRequest) -> Iterator[Site]:
    """All of it, on a cluster of three encrypted databases."""
    [boxes_port] = free_ports(1)
    section = database_section(cluster_servers, lambda _room: cluster_servers.hosts)
    plan = Plan(section, boxes_port, COUNTS)
    with running(cluster_servers, plan, request.session, (*BOXES, PROBE)) as system:
        home, head_end = system.head_end.home, system.head_end
        with Monitoring(home / "monitoring", head_end, cluster_servers) as monitoring:
            yield Site(system, monitoring, Desk(head_end))


def wait_for(holds: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Wait until another process has done it; it can only be asked."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.2)


def test_the_whole_head_end(site: Site) -> None:
    """From the first order to the auditor's verdict, in under a quarter of an hour."""
    system = site.system
    with system.load(SEED, PAUSE_S, BOXES) as sms:
        wait_for_orders(sms)
        site.monitoring.wait_for(AIRING)
        all_is_watched(site)
        an_operator_finds_an_order_and_sends_it_again(site)
        before = begin_rotation(site)
        the_primary_dies(site, sms)
        of_each_pair_the_active_one_dies(site, sms)
        rotation_ends(site, before)
    figures = system.verdict(sms)
    every_box_has_the_new_key(site, before)
    the_record_is_whole_and_agrees_with_the_sms(site)
    quiet = f'absent(ALERTS{{alertstate="firing",alertname!~"{_EXPECTED}"}})'
    site.monitoring.wait_for(quiet, "all alerts end", WAIT_S)
    assert site.monitoring.down() == []
    sys.stdout.write(f"{figures} worst gap {sms.worst_gap_s:.1f} s, {sms.failed_tries}\n")


def all_is_watched(site: Site) -> None:
    """Every target is up, every rule is evaluated, every query of a dashboard is answered."""
    wait_for(lambda: site.monitoring.down() == [], "every target up")
    rooms = {name for name in site.system.head_end.names if COUNTS[name]}
    watched = {row["metric"]["job"] for row in site.monitoring.query("up == 1")}
    assert watched == {f"portcullis-{room}" for room in rooms} | {"node", "mysqld", "certificate"}
    wait_for(lambda: site.monitoring.rules_without_answer() == [], "every rule evaluated")
    dashboards_answered(site.monitoring)
    site.monitoring.webhook.wait("heartbeat", "PortcullisWatchdog")


def an_operator_finds_an_order_and_sends_it_again(site: Site) -> None:
    """By `status`, `requests show` and the console; re-hit by the console and by the command."""
    desk = site.desk
    with site.system.probe() as probe:
        probe.seen()
    transaction_id = f"probe-{next(site.system.numbers) - 1}"
    status = desk.status()
    assert {name: one["status"] for name, one in status["services"].items()} == dict.fromkeys(
        status["services"], "ok"
    )
    assert status["streams"][0]["is_aired"]
    wait_for(
        lambda: (
            desk.one("requests", "show", "--transaction-id", transaction_id).get("status")
            == "on_air"
        ),
        "the order is told to be on air",
    )
    desk.send_again_by_console(PROBE, transaction_id)
    wait_for(lambda: desk.sent_again(PROBE) == 1, "what the console sent again is on air")
    desk.send_again(PROBE)
    wait_for(lambda: desk.sent_again(PROBE) == 2, "what the command sent again is on air")


def begin_rotation(site: Site) -> int:
    """Start a new key chain of a product that boxes hold; the first epoch of the one before."""
    [chain] = site.desk.chains(ROTATED)
    site.desk.one("keys", "rotate", "--product", str(ROTATED), "--now", as_="keys")
    assert len(site.desk.chains(ROTATED)) == 2
    first: int = chain["first_epoch"]
    return first


def the_primary_dies(site: Site, sms: Sms) -> None:
    """Its death is told; a replica takes its place, it comes back as one, and that is told."""
    cluster, webhook = site.system.cluster, site.monitoring.webhook
    dead = cluster.primary
    webhook.forget()
    cluster.kill(dead)
    webhook.wait("page", "PortcullisDatabaseDown")
    cluster.promote(next(name for name in cluster.nodes if name != dead))
    cluster.heal()
    wait_for_orders(sms)
    webhook.wait("page", "PortcullisDatabaseDown", "resolved")
    assert cluster.execute("SELECT @@read_only AS r", dead) == [{"r": 1}]


def of_each_pair_the_active_one_dies(site: Site, sms: Sms) -> None:
    """Kept dead until that is told; the others do the work meanwhile."""
    head_end, monitoring = site.system.head_end, site.monitoring
    leads = monitoring.instances("portcullis_scheduler_leading == 1")
    airs = monitoring.instances("portcullis_cycler_holds_lease == 1")
    victims = {"scheduler": leads[0], "cycler": airs[0]}
    victims |= {room: head_end.names[room][0] for room in ("gateway", "emmg", "encryptor")}
    monitoring.webhook.forget()
    for name in victims.values():
        head_end.keeper.hold(name)
    wait_for_orders(sms)
    with site.system.probe() as probe:
        probe.seen()
    for room in victims:
        monitoring.webhook.wait("ticket", "PortcullisInstanceDown", job=f"portcullis-{room}")
    for name in victims.values():
        head_end.keeper.let(name)
    for room in victims:
        told = ("ticket", "PortcullisInstanceDown", "resolved")
        monitoring.webhook.wait(*told, job=f"portcullis-{room}")
    assert monitoring.instances("portcullis_scheduler_leading == 1") != leads
    assert monitoring.instances("portcullis_cycler_holds_lease == 1") != airs


def rotation_ends(site: Site, before: int) -> None:
    """The new chain is live and the old one retired."""

    def is_over() -> bool:
        chains = site.desk.chains(ROTATED)
        old = next(row for row in chains if row["first_epoch"] == before)
        return old["retired_at"] is not None and chains[-1]["live_epoch"] is not None

    wait_for(is_over, "the old chain retired")


def every_box_has_the_new_key(site: Site, before: int) -> None:
    """Whoever holds the product has its key of the new chain."""
    first = site.desk.chains(ROTATED)[-1]["first_epoch"]
    assert first > before
    entitled = {int(device_id) for device_id, held in open_rights(site).items() if ROTATED in held}
    assert entitled

    def all_have_it(receiver: Receiver) -> bool:
        return all(
            any(
                one.product_id == ROTATED and one.epoch >= first
                for one in receiver.boxes[number].entitlements
            )
            for number in entitled
        )

    assert site.system.boxes.wait(all_have_it, WAIT_S)


def open_rights(site: Site) -> dict[str, list[int]]:
    """By the ledger: products of every active box whose window is open now."""
    now = datetime.now(UTC)
    return {
        device_id: [one for one, (start, end) in box.products.items() if start <= now < end]
        for device_id, box in ledger_of(site.system.ledger).boxes.items()
        if box.active
    }


def the_record_is_whole_and_agrees_with_the_sms(site: Site) -> None:
    """`audit verify` finds nothing, `audit reconcile` no difference to the ledger."""
    desk, home = site.desk, site.system.head_end.home
    orders = sum(1 for _ in read_ledger(site.system.ledger))
    wait_for(lambda: desk.one("audit", "verify", as_="auditor1")["records"] >= orders, "the record")
    assert desk.one("audit", "verify", as_="auditor1")["verdict"] == "as it was written"
    rights = open_rights(site)
    sms_file = home / "sms.csv"
    with sms_file.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        for device_id, products in rights.items():
            rows.writerows((device_id, product_id) for product_id in products or [""])
    said = desk.one("audit", "reconcile", "--sms", str(sms_file), as_="auditor1")
    assert (said["devices"], said["mismatched"]) == (len(rights), 0)
