"""What breaks is told to the right people by its right name, and so is its mending."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from portcullis.cli.up import MONITORS
from tests.cluster import Cluster
from tests.faults.conftest import database_section
from tests.faults.headend import HeadEnd, Plan
from tests.faults.sms import Sms
from tests.ports import free_ports
from tests.system.monitoring import AIRING, Monitoring, dashboards_answered

pytestmark = [pytest.mark.monitoring, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(420)]

BOXES = ["1001", "1002", "1003", "1004"]
COUNTS = {"encryptor": 1, "mux": 1, "scheduler": 1, "emmg": 1, "cycler": 1, "gateway": 2}


@dataclass
class Site:
    """A head-end under load, and who watches it."""

    head_end: HeadEnd
    cluster: Cluster
    monitoring: Monitoring


@pytest.fixture(scope="module")
def site(cluster_servers: Cluster) -> Iterator[Site]:
    """All of it, airing."""
    cluster_servers.renew()
    home = Path(tempfile.mkdtemp(prefix="portcullis-monitoring-", dir="/var/tmp"))
    [boxes_port] = free_ports(1)
    section = database_section(cluster_servers, lambda _room: cluster_servers.hosts)
    head_end = HeadEnd(home, Plan(section, boxes_port, COUNTS))
    head_end.prepare(BOXES)
    with (
        head_end,
        Sms(
            head_end.access, home / "ledger.jsonl", BOXES, seed=1, run="monitoring", pause_s=0.3
        ) as sms,
        Monitoring(home / "monitoring", head_end, cluster_servers) as monitoring,
    ):
        monitoring.wait_for(AIRING)
        yield Site(head_end, cluster_servers, monitoring)
        sms.stop()
    shutil.rmtree(home)


def test_every_query_of_the_dashboards_has_an_answer(site: Site) -> None:
    """On a head-end that works; what counts mishaps may have nothing to show."""
    dashboards_answered(site.monitoring)


def test_what_runbooks_look_at_is_there(site: Site) -> None:
    """Their `curl` and `portcullis` lines, on the ports and configurations of this site."""
    head_end = site.head_end
    port_of = {
        str(port): head_end.monitors[head_end.names[room][0]]
        for room, port in MONITORS.items()
        if room in head_end.names
    }
    lines = set()
    for page in Path("docs/operations/runbooks").glob("*.md"):
        lines |= set(page.read_text().split("```sh\n")[1].split("```")[0].splitlines())
    tried = 0
    for line in sorted(lines):
        port = re.match(r"curl -s http://127.0.0.1:(91\d\d)/", line)
        if port and port[1] in port_of:
            command = line.replace(port[1], str(port_of[port[1]]))
        elif line.startswith(("portcullis config show", "portcullis keys list")):
            there = re.search(r"/etc/portcullis/(\w+)\.toml", line)
            assert there is not None, line
            here = head_end.config(head_end.names.get(there[1], [there[1]])[0])
            command = line.replace("portcullis", f"{sys.executable} -m portcullis.cli.main", 1)
            command = command.replace(there[0], str(here))
        else:
            continue
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        tried += 1
    assert tried > 20


def test_what_breaks_is_told_and_so_is_its_mending(site: Site) -> None:
    """Eight things are broken for real; causes silence what follows from them."""
    keeper, webhook = site.head_end.keeper, site.monitoring.webhook
    webhook.wait("heartbeat", "PortcullisWatchdog")
    # The certificate before the gateways has a week left from the beginning.
    soon = webhook.wait("ticket", "PortcullisCertificateExpiring")
    assert soon["annotations"]["runbook_url"].endswith("/PortcullisCertificateExpiring.md")
    webhook.forget()

    asrun = site.head_end.home / "cycler1-asrun"
    keeper.hold("mux1")
    keeper.hold("encryptor1")
    keeper.hold("gateway2")
    site.cluster.kill("db3")
    webhook.wait("page", "PortcullisMuxLinkDown", stream="0xFFF00001:1")
    webhook.wait("page", "PortcullisEncryptorUnavailable")
    webhook.wait("ticket", "PortcullisInstanceDown", job="portcullis-gateway")
    webhook.wait("page", "PortcullisDatabaseDown")
    webhook.wait("ticket", "PortcullisReplicaLost")
    site.monitoring.wait_for('ALERTS{alertname="PortcullisStreamUnheld",alertstate="firing"}')
    assert site.monitoring.inhibited("PortcullisStreamUnheld")
    for name in ("mux1", "encryptor1", "gateway2"):
        keeper.let(name)
    site.cluster.heal()
    webhook.wait("page", "PortcullisMuxLinkDown", "resolved")
    webhook.wait("page", "PortcullisEncryptorUnavailable", "resolved")
    webhook.wait("ticket", "PortcullisInstanceDown", "resolved", job="portcullis-gateway")
    webhook.wait("page", "PortcullisDatabaseDown", "resolved")
    webhook.wait("ticket", "PortcullisReplicaLost", "resolved")
    keeper.wait_ready()
    site.monitoring.wait_for(AIRING)
    webhook.forget()

    # A directory where a file is to be: what a disk does that takes no more.
    keeper.hold("cycler1")
    shutil.move(asrun, asrun.with_suffix(".kept"))
    asrun.write_text("")
    keeper.let("cycler1")
    keeper.hold("scheduler1")
    site.cluster.kill("db1")
    webhook.wait("page", "PortcullisNoLeader")
    webhook.wait("page", "PortcullisApiErrors")
    site.cluster.promote("db2")
    site.cluster.heal()
    webhook.wait("page", "PortcullisAsRunFailing")
    asrun.unlink()
    shutil.move(asrun.with_suffix(".kept"), asrun)
    keeper.let("scheduler1")
    webhook.wait("page", "PortcullisNoLeader", "resolved")
    webhook.wait("page", "PortcullisApiErrors", "resolved")
    webhook.wait("page", "PortcullisAsRunFailing", "resolved")
