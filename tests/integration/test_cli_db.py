"""`portcullis db check` against a whole cluster, spoilt ones, and a server as it comes."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import make_url

from portcullis.cli.main import cli
from tests.cluster import Cluster

pytestmark = pytest.mark.xdist_group("cluster")


def configuration(cluster: Cluster, home: Path, user: str = "portcullis_operator") -> Path:
    """A configuration as docs/operations/database.md has it."""
    path = home / "portcullis.toml"
    path.write_text(
        f"""
[database]
url = "mysql+pymysql://{user}@/portcullis?charset=utf8mb4"
password_file = "{cluster.password_file(user)}"
hosts = {json.dumps(cluster.hosts)}
ssl_ca = "{cluster.ssl_ca}"
"""
    )
    return path


def check(config: Path) -> tuple[bool, list[dict[str, Any]]]:
    """Run `db check --json`: whether it exited 0, and the points that are not good."""
    result = CliRunner().invoke(cli, ["db", "check", "--json", "--config", str(config)])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows, result.output
    return result.exception is None, [row for row in rows if not row["good"]]


def test_a_cluster_set_up_as_documented_is_fit(cluster: Cluster, tmp_path: Path) -> None:
    assert check(configuration(cluster, tmp_path)) == (True, [])
    table = CliRunner().invoke(
        cli,
        ["db", "check", "--config", str(configuration(cluster, tmp_path))],
        env={"COLUMNS": "200"},
    )
    assert table.exit_code == 0
    assert "2 of 2 replicas acknowledge" in table.stdout


def test_a_setting_that_was_changed_and_a_replica_that_is_away_are_named(
    cluster: Cluster, tmp_path: Path
) -> None:
    config = configuration(cluster, tmp_path)
    changed, dead = (name for name in cluster.nodes if name != cluster.primary)
    cluster.execute("SET GLOBAL sync_binlog = 0", changed)
    try:
        is_fit, bad = check(config)
        assert not is_fit
        [point] = bad
        assert point["server"] == cluster.nodes[changed].address
        assert point["point"] == "commits on disk"
    finally:
        cluster.execute("SET GLOBAL sync_binlog = 1", changed)
    cluster.kill(dead)
    cluster.await_replicas(1)
    assert {row["point"]: row["server"] for row in check(config)[1]} == {
        "answers": cluster.nodes[dead].address,
        "primary": cluster.nodes[cluster.primary].address,
    }


def test_a_table_in_clear_is_named(cluster: Cluster, tmp_path: Path) -> None:
    """One that was made before encryption was asked for."""
    primary, unseen = cluster.nodes[cluster.primary], "SET sql_log_bin = 0"  # by the replicas
    cluster.execute("SET GLOBAL innodb_encryption_threads = 0")  # they would decrypt the others
    cluster.execute("SET GLOBAL innodb_encrypt_tables = OFF")
    try:
        primary.client(f"{unseen}; CREATE TABLE portcullis.old (id INT PRIMARY KEY) ENCRYPTED=NO")
        points = {row["point"]: row["found"] for row in check(configuration(cluster, tmp_path))[1]}
        assert points["table files encrypted"] == "in clear: portcullis/old"
        assert points["tables encrypted"] == "innodb_encrypt_tables is OFF, not FORCE"
    finally:
        primary.client(f"{unseen}; DROP TABLE IF EXISTS portcullis.old")
        cluster.execute("SET GLOBAL innodb_encrypt_tables = 'FORCE'")
        cluster.execute("SET GLOBAL innodb_encryption_threads = 2")


def test_a_user_that_may_not_see_it_is_no_pass(cluster: Cluster, tmp_path: Path) -> None:
    is_fit, bad = check(configuration(cluster, tmp_path, "portcullis_gateway"))
    assert not is_fit
    assert {row["found"] for row in bad} == {
        "not shown: needs PROCESS",
        "not shown: needs SLAVE MONITOR",
    }


def test_a_server_as_it_comes_is_not_fit(mariadb_url: str, tmp_path: Path) -> None:
    """Neither encrypted, nor replicated, nor on TLS; the schema is right."""
    config = tmp_path / "portcullis.toml"
    url = make_url(mariadb_url).render_as_string(hide_password=False)
    config.write_text(f'[database]\nurl = "{url}"\n')
    is_fit, bad = check(config)
    assert not is_fit
    assert {row["point"] for row in bad} == {
        "tls",
        "tables encrypted",
        "redo log encrypted",
        "binary log encrypted",
        "temporary files encrypted",
        "commits on disk",
        "replication loses nothing",
        "table files encrypted",
        "primary",
        "this connection",
    }


def test_sqlite_is_not_for_production(tmp_path: Path) -> None:
    config = tmp_path / "portcullis.toml"
    config.write_text(f'[database]\nurl = "sqlite:///{tmp_path}/a.db"\n')
    result = CliRunner().invoke(cli, ["db", "check", "--config", str(config)])
    assert "SQLite is for one machine" in str(result.exception)
