"""What all fault tests share."""

import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.faults.boxes import Boxes
from tests.faults.headend import HeadEnd, Plan
from tests.faults.proxy import Proxies
from tests.faults.scale import IS_FULL
from tests.faults.system import DEVICES, PROBE, System
from tests.faults.wires import Wires
from tests.ports import free_ports

# Its short form takes a minute, and tests/system/test_rotation_on_air.py shows much of it.
collect_ignore = [] if IS_FULL else ["test_rotation.py"]


@pytest.hookimpl(tryfirst=True)  # else pytest-xdist has looked for groups already
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those with a cluster of databases one after the other, and beside them the rest."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            has_cluster = "cluster_servers" in getattr(item, "fixturenames", ())
            is_first = has_cluster or (IS_FULL and item.path.name in _FOR_BALANCE)
            item.add_marker(pytest.mark.xdist_group("cluster" if is_first else "faults"))


_FOR_BALANCE = ("test_killed_anywhere.py", "test_clock_steps.py")
"""In full these go with the cluster's: both groups then take about as long."""


_SEED = int(os.environ.get("FAULT_SEED", random.randrange(10**6)))


@pytest.fixture
def seed() -> int:
    """What all chance comes from; said where a test fails, so that it can be repeated."""
    sys.stdout.write(f"FAULT_SEED={_SEED}\n")
    return _SEED


@pytest.fixture(scope="module")
def system(cluster_servers: Cluster, request: pytest.FixtureRequest) -> Iterator[System]:
    """The head-end, several of each, on a cluster; boxes at the end of its stream."""
    [boxes_port] = free_ports(1)
    section = database_section(cluster_servers, lambda _room: cluster_servers.hosts)
    plan = Plan(section, boxes_port)
    with running(cluster_servers, plan, request.session) as system:
        yield system


@pytest.fixture(scope="module")
def wires(cluster_servers: Cluster) -> Iterator[Wires]:
    """A fault proxy on each connection of `wired`."""
    with Proxies() as proxies:
        yield Wires(proxies, cluster_servers)


@pytest.fixture(scope="module")
def wired(
    cluster_servers: Cluster, wires: Wires, request: pytest.FixtureRequest
) -> Iterator[System]:
    """The head-end, one of each that no other may stand in for, every connection by a proxy."""
    [boxes_port] = free_ports(1)
    plan = Plan(
        database_section(cluster_servers, wires.database),
        boxes_port,
        counts=dict.fromkeys(("encryptor", "mux", "scheduler", "emmg", "cycler"), 1)
        | {"gateway": 2},
        reach=wires.reach,
    )
    with running(cluster_servers, plan, request.session) as system:
        yield system


@contextmanager
def running(
    cluster: Cluster,
    plan: Plan,
    session: pytest.Session,
    devices: Sequence[str] = (*DEVICES, PROBE),
    adapt: Callable[[HeadEnd], None] = lambda _: None,
) -> Iterator[System]:
    """A head-end with boxes, on empty tables. Where a test failed, its files are kept.

    adapt: changes what is prepared, configurations for example, before it starts.
    """
    failed_before = session.testsfailed
    cluster.renew()
    home = Path(tempfile.mkdtemp(prefix="portcullis-faults-", dir="/var/tmp"))
    head_end = HeadEnd(home, plan)
    head_end.prepare(devices)
    adapt(head_end)
    url = f"udp://127.0.0.1:{plan.boxes_port}"
    with Boxes(url, home / "devices.json") as boxes, head_end:
        yield System(head_end, boxes, cluster)
    if session.testsfailed == failed_before:
        shutil.rmtree(home)
    else:
        sys.stderr.write(f"logs and ledger: {home}\n")


def database_section(
    cluster: Cluster, hosts_of: Callable[[str], Sequence[str]]
) -> Callable[[str], str]:
    """[database] of each room, under its own user."""

    def section(room: str) -> str:
        user = f"portcullis_{room}"
        return (
            "[database]\n"
            f'url = "mysql+pymysql://{user}@/portcullis?charset=utf8mb4"\n'
            f'password_file = "{cluster.password_file(user)}"\n'
            f"hosts = {json.dumps(list(hosts_of(room)))}\n"
            f'ssl_ca = "{cluster.ssl_ca}"\n'
        )

    return section
