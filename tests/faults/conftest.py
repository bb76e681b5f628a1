"""What all fault tests share."""

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.faults.boxes import Boxes
from tests.faults.headend import HeadEnd, Plan
from tests.faults.scale import IS_FULL
from tests.faults.system import System
from tests.ports import free_ports


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All on one worker, one after the other: each wants the machine for itself."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("faults"))


_SEED = int(os.environ.get("FAULT_SEED", random.randrange(10**6)))


@pytest.fixture
def seed() -> int:
    """What all chance comes from; said where a test fails, so that it can be repeated."""
    sys.stdout.write(f"FAULT_SEED={_SEED}\n")
    return _SEED


@pytest.fixture(scope="module")
def system(cluster_servers: Cluster) -> Iterator[System]:
    """The head-end, several of each, on a cluster; boxes at the end of its stream."""
    cluster_servers.renew()
    home = Path(tempfile.mkdtemp(prefix="portcullis-faults-", dir="/var/tmp"))
    [boxes_port] = free_ports(1)
    head_end = HeadEnd(home, Plan(cluster_section(cluster_servers), boxes_port))
    head_end.prepare([str(number) for number in range(1001, 1201 if IS_FULL else 1061)])
    with Boxes(f"udp://127.0.0.1:{boxes_port}", home / "devices.json") as boxes, head_end:
        yield System(head_end, boxes, cluster_servers)
    shutil.rmtree(home)


def cluster_section(cluster: Cluster) -> Callable[[str], str]:
    """[database] of each room, under its own user."""

    def section(room: str) -> str:
        address = cluster.nodes[cluster.primary].address
        user = f"portcullis_{room}"
        return (
            "[database]\n"
            f'url = "mysql+pymysql://{user}@{address}/portcullis?charset=utf8mb4'
            f'&ssl_ca={cluster.ssl_ca}"\n'
            f'password_file = "{cluster.password_file(user)}"\n'
        )

    return section
