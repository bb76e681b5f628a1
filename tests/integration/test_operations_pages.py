"""docs/operations/database.md and failover.md, command by command, from three bare servers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import HOST, Cluster
from tests.operations import blocks, run

pytestmark = pytest.mark.xdist_group("cluster")


@pytest.fixture
def bare() -> Iterator[Cluster]:
    """Three servers with MariaDB installed, and nothing in them."""
    cluster = Cluster(is_bare=True)
    try:
        yield cluster
    finally:
        cluster.__exit__(None, None, None)


def test_a_cluster_is_set_up_and_fails_over_as_the_pages_say(bare: Cluster, tmp_path: Path) -> None:
    """`db check` finds no fault in it, and no row is lost on the way."""
    set_up(bare, tmp_path)
    fail_over(bare, tmp_path)


def set_up(bare: Cluster, home: Path) -> None:
    """database.md, "A database cluster from nothing"."""
    nodes = list(bare.nodes.values())

    def here(block: str) -> str:
        """The block with the servers of the test for those of the page."""
        for number, node in enumerate(nodes, start=1):
            block = block.replace(f"db{number}.example:3306", node.address)
            block = block.replace(f"db{number}.example", HOST)
        for name in ("migrate", "operator"):
            block = block.replace(f"{name}.toml", str(home / f"{name}.toml"))
        return block

    page = [here(block) for block in blocks("database.md", "From nothing")]
    keys, data, users, first, replication, tables, check = page
    run(keys, home, DIRECTORY=str(bare.shared))
    bare.give_to_servers()
    for node in nodes:
        run(data, home, node, DATA=str(node.data))
        run(users, home, node, DIRECTORY=str(bare.shared))
    run(first, home, nodes[0])
    run(replication, home, DIRECTORY=str(bare.shared))
    for name in ("migrate", "operator"):
        user = f"portcullis_{name}"
        (home / f"{name}.toml").write_text(
            "[database]\n"
            f'url = "mysql+pymysql://{user}@/portcullis?charset=utf8mb4"\n'
            f'password_file = "{bare.password_file(user)}"\n'
            f"hosts = {json.dumps(bare.hosts)}\n"
            f'ssl_ca = "{bare.ssl_ca}"\n'
        )
    run(tables, home, nodes[0])
    bare.catch_up()
    run(check, home)


def fail_over(bare: Cluster, home: Path) -> None:
    """failover.md, section by section."""
    directory = str(bare.shared)
    db1, db2, db3 = bare.nodes.values()

    def add(name: str, product_id: int) -> None:
        bare.primary = name
        bare.execute(
            f"INSERT INTO portcullis.products VALUES ({product_id}, 'p', UTC_TIMESTAMP(6))"
        )

    [status] = blocks("failover.md", "Roles")
    [planned] = blocks("failover.md", "A planned change")
    promote, comes_back = blocks("failover.md", "The primary is dead")
    [without] = blocks("failover.md", "A replica is missing too")
    [restarted] = blocks("failover.md", "A replica restarted")
    back_up, rebuild, rejoin = blocks("failover.md", "Rebuild a server")

    run(planned, home, DIRECTORY=directory, NEW=db2.address)
    add("db2", 1)
    db2.kill()
    run(promote, home, DIRECTORY=directory, NEW=db1.address)
    add("db1", 2)
    run(comes_back, home, db2, DIRECTORY=directory, OLD=db2.address)
    db3.kill()
    add("db1", 3)
    db1.kill()
    missing = {"NEW": db2.address, "MISSING": db3.address}
    run(without, home, DIRECTORY=directory, **missing)
    db3.start()
    run(restarted, home, DIRECTORY=directory, REPLICA=db3.address)
    bare.primary = "db2"
    run(back_up, home, db2, BACKUP=str(home / "backup"))
    add("db2", 4)
    own = {"BACKUP": str(home / "backup"), "DATA": str(db1.data)}
    run(rebuild, home, db1, **own)
    run(rejoin, home, DIRECTORY=directory, SERVER=db1.address)
    said = run(status, home, DIRECTORY=directory)
    assert [line.split()[1] for line in said.splitlines()[1:]] == ["replica", "primary", "replica"]
    bare.catch_up()
    for name in bare.nodes:
        rows = bare.execute("SELECT product_id FROM portcullis.products ORDER BY 1", name)
        assert [row["product_id"] for row in rows] == [1, 2, 3, 4]
