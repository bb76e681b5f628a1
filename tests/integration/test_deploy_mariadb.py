"""The configuration and scripts in deploy/mariadb, on three real servers."""

import subprocess
import threading
from datetime import timedelta
from pathlib import Path

import pymysql
import pytest
from evidence_log import auditor, order, verify
from sqlalchemy import select, update

from portcullis.scheduler.blacklist import blacklist
from portcullis.store.blacklist import repair_number, set_blacklisted
from portcullis.store.database import engine_for, writing
from portcullis.store.rights import active_rights
from portcullis.store.schema import device_work, entitlements, messages, metadata
from tests.cluster import DEPLOY, HOST, Cluster
from tests.integration.scheduler_bench import Bench, ChainMaker

pytestmark = pytest.mark.xdist_group("cluster")

DENIED = (1142, 1143)  # table access denied, column access denied
DENIED_TO = [
    ("gateway", "SELECT sealed_key FROM `keys`"),
    ("gateway", "SELECT * FROM `keys`"),
    ("gateway", "DELETE FROM requests"),
    ("gateway", "UPDATE requests SET body = ''"),
    ("gateway", "DELETE FROM device_work"),
    ("gateway", "INSERT INTO emms VALUES ()"),
    ("emmg", "SELECT * FROM requests"),
    ("emmg", "UPDATE entitlements SET ends_at = NULL"),
    ("emmg", "UPDATE `keys` SET sealed_key = ''"),
    ("emmg", "UPDATE feed SET timeline = 0"),
    ("cycler", "SELECT owner FROM `keys`"),
    ("cycler", "UPDATE emms SET section = ''"),
    ("cycler", "DELETE FROM emms"),
    ("scheduler", "UPDATE entitlements SET ends_at = NULL"),
    ("scheduler", "DELETE FROM `keys`"),
    ("keys", "DELETE FROM `keys`"),
    ("gateway", "DELETE FROM key_events"),
    ("gateway", "DELETE FROM chains"),
    ("scheduler", "DELETE FROM key_events"),
    ("keys", "UPDATE key_events SET detail = ''"),
    ("auditor", "SELECT owner FROM `keys`"),
    ("auditor", "UPDATE requests SET body = ''"),
    ("auditor", "DELETE FROM key_events"),
    ("auditor", "INSERT INTO chains VALUES ()"),
    ("operator", "SELECT sealed_key FROM `keys`"),
    ("operator", "UPDATE devices SET active = 1"),
    ("operator", "DELETE FROM requests"),
    ("admin", "SELECT * FROM entitlements"),
]


def _connect(cluster: Cluster, user: str, name: str | None = None) -> "pymysql.Connection[object]":
    return pymysql.connect(
        host=HOST,
        port=cluster.nodes[name or cluster.primary].port,
        user=user,
        password=cluster.password(user),
        database="portcullis",
        ssl_ca=str(cluster.ssl_ca),
        ssl_verify_identity=True,
        autocommit=True,
    )


def _add(cluster: Cluster, product_id: int) -> None:
    cluster.execute(f"INSERT INTO portcullis.products VALUES ({product_id}, 'p', UTC_TIMESTAMP(6))")


def _add_unanswered(cluster: Cluster, product_id: int) -> None:
    with pytest.raises(pymysql.err.OperationalError, match="Lost connection"):
        _add(cluster, product_id)


def _catch_up(cluster: Cluster, name: str) -> None:
    position = cluster.execute("SELECT @@gtid_binlog_pos AS p")[0]["p"]
    cluster.execute(f"SELECT MASTER_GTID_WAIT('{position}', 30)", name)


def _products(cluster: Cluster, name: str | None = None) -> list[int]:
    rows = cluster.execute("SELECT product_id FROM portcullis.products ORDER BY 1", name)
    return [row["product_id"] for row in rows]


def test_a_commit_answered_by_the_primary_outlives_it(cluster: Cluster) -> None:
    """The server promoted has it; the dead one comes back as a replica and catches up."""
    dead = cluster.primary
    new, other = (name for name in cluster.nodes if name != dead)
    _add(cluster, 1)
    cluster.kill(dead)
    cluster.promote(new)
    _add(cluster, 2)
    assert _products(cluster) == [1, 2]
    cluster.start_replaced(dead)
    assert cluster.execute("SELECT @@read_only AS r", dead) == [{"r": 1}]
    cluster.rejoin(dead)
    _add(cluster, 3)
    for name in (dead, other):
        _catch_up(cluster, name)
        assert _products(cluster, name) == [1, 2, 3]


def test_a_primary_is_changed_as_planned_and_keeps_every_row(cluster: Cluster) -> None:
    old = cluster.primary
    new = next(name for name in cluster.nodes if name != old)
    _add(cluster, 1)
    cluster.promote(new)
    assert _products(cluster) == [1]
    with _connect(cluster, "portcullis_gateway", old) as late, late.cursor() as cursor:
        with pytest.raises(pymysql.err.OperationalError) as refused:
            cursor.execute("INSERT INTO products VALUES (2, 'p', UTC_TIMESTAMP(6))")
        assert refused.value.args[0] == 1290


def test_no_server_is_promoted_that_may_lack_an_answered_commit(cluster: Cluster) -> None:
    """A replica that restarted may have forgotten what it alone had acknowledged.

    The primary itself has everything, once it runs again.
    """
    dead = cluster.primary
    restarted, left = (name for name in cluster.nodes if name != dead)
    cluster.kill(restarted)
    _add(cluster, 1)
    cluster.kill(dead)
    cluster.start(restarted)
    for name in (restarted, left):
        with pytest.raises(AssertionError, match=r"may alone hold answered writes"):
            cluster.promote(name)
    cluster.start(dead)
    with pytest.raises(AssertionError, match="there is no primary to follow"):
        cluster.rejoin(restarted)
    cluster.promote(dead)
    assert _products(cluster) == [1]


def test_a_replica_takes_from_the_other_what_it_had_not_received(cluster: Cluster) -> None:
    """Which of them acknowledged a commit is chance; either can be promoted."""
    dead = cluster.primary
    behind, ahead = (name for name in cluster.nodes if name != dead)
    cluster.execute("STOP REPLICA IO_THREAD", behind)
    _add(cluster, 1)
    cluster.kill(dead)
    assert _products(cluster, behind) == []
    cluster.promote(behind)
    _add(cluster, 2)
    assert _products(cluster) == [1, 2]
    _catch_up(cluster, ahead)
    assert _products(cluster, ahead) == [1, 2]


def test_a_replica_is_not_promoted_past_a_former_primary_that_has_more(cluster: Cluster) -> None:
    """What nobody acknowledged may still have been read; the former primary keeps it."""
    former = cluster.primary
    replicas = [name for name in cluster.nodes if name != former]
    for name in replicas:
        cluster.execute("STOP REPLICA IO_THREAD", name)
    written = threading.Thread(target=_add_unanswered, args=(cluster, 1))
    written.start()
    _await_a_waiting_session(cluster)
    cluster.kill(former)
    written.join(30)
    cluster.start(former)
    with pytest.raises(AssertionError, match=r"lacks writes that .* has: promote that one"):
        cluster.promote(replicas[0])
    cluster.promote(former)
    assert _products(cluster) == [1]


def test_who_was_away_before_the_primary_died_need_not_be_asked(cluster: Cluster) -> None:
    dead = cluster.primary
    away, left = (name for name in cluster.nodes if name != dead)
    cluster.kill(away)
    _add(cluster, 1)
    cluster.kill(dead)
    cluster.promote(left, "--without", cluster.nodes[away].address)
    assert _products(cluster) == [1]


def test_a_server_with_rows_of_its_own_cannot_follow(cluster: Cluster) -> None:
    """A dead primary that recovered a commit nobody was answered for is refused, not merged."""
    dead = cluster.primary
    new = next(name for name in cluster.nodes if name != dead)
    cluster.kill(dead)
    cluster.promote(new)
    _add(cluster, 1)
    cluster.start(dead)
    cluster.execute("INSERT INTO portcullis.products VALUES (9, 'p', UTC_TIMESTAMP(6))", dead)
    with pytest.raises(AssertionError, match="does not replicate"):
        cluster.rejoin(dead)
    cluster.rebuild(dead)


def test_without_a_replica_a_commit_waits(cluster: Cluster) -> None:
    """It is not answered on the strength of one disk; when a replica is back, it is."""
    replicas = [name for name in cluster.nodes if name != cluster.primary]
    for name in replicas:
        cluster.kill(name)
    written = threading.Thread(target=_add, args=(cluster, 1))
    written.start()
    _await_a_waiting_session(cluster)
    assert written.is_alive()
    cluster.start(replicas[0])
    cluster.rejoin(replicas[0])
    written.join(30)
    assert not written.is_alive()


def _await_a_waiting_session(cluster: Cluster) -> None:
    """Return once a session waits for a replica; the test's time-out bounds it."""
    while True:
        [row] = cluster.execute("SHOW STATUS LIKE 'Rpl_semi_sync_master_wait_sessions'")
        if int(row["Value"]):
            return


def test_no_connection_is_taken_in_clear(cluster: Cluster) -> None:
    with pytest.raises(pymysql.err.OperationalError) as refused:
        pymysql.connect(
            host=HOST,
            port=cluster.nodes[cluster.primary].port,
            user="portcullis_gateway",
            password=cluster.password("portcullis_gateway"),
            ssl_disabled=True,
        )
    assert refused.value.args[0] in (1045, 3159)  # access denied; secure transport required


def test_a_user_can_do_no_more_than_its_work(cluster: Cluster) -> None:
    """Each of these statements is refused for want of a right."""
    for user, statement in DENIED_TO:
        with _connect(cluster, f"portcullis_{user}") as connection, connection.cursor() as cursor:
            with pytest.raises(pymysql.err.OperationalError) as refused:
                cursor.execute(statement)
            assert refused.value.args[0] in DENIED, (user, statement)


def test_nobody_but_scheduler_and_migration_deletes_requests(cluster: Cluster) -> None:
    rows = cluster.execute(
        "SELECT User AS u FROM mysql.tables_priv WHERE Table_name = 'requests'"
        " AND Table_priv REGEXP 'Delete|Drop'"
    )
    assert [row["u"] for row in rows] == ["portcullis_scheduler"]


def test_every_table_has_somebody_who_may_write_it(cluster: Cluster) -> None:
    """A table that a migration brings and grants.sql forgets would stop a service."""
    rows = cluster.execute(
        "SELECT DISTINCT Table_name AS t FROM mysql.tables_priv WHERE Table_priv LIKE '%Insert%'"
    )
    written = {row["t"] for row in rows}
    # The feed's one row comes with the schema; a restore is declared by the migration's user.
    assert written >= metadata.tables.keys() - {"feed", "recoveries"}


def test_the_auditor_keeps_and_verifies_the_record_with_a_user_that_only_reads(
    cluster: Cluster, tmp_path: Path
) -> None:
    gateway, reader = (
        engine_for(cluster.url(f"portcullis_{name}")) for name in ("gateway", "auditor")
    )
    order(gateway, 1, 2)
    one = auditor(reader, tmp_path)
    assert one.follow() == 2
    one.sign()
    one.close()
    report = verify(reader, tmp_path)
    assert (report.findings, report.records) == ([], 2)
    assert list(active_rights(reader)) == []
    for engine in (gateway, reader):
        engine.dispose()


def test_a_box_is_shut_out_and_a_number_repaired_with_the_user_of_the_keys(
    cluster: Cluster,
) -> None:
    """Its rights, its messages, its return, the chains that it knows."""
    owner, keeper = (engine_for(cluster.url(f"portcullis_{name}")) for name in ("migrate", "keys"))
    bench = Bench(owner)
    bench.product()
    bench.boxes(1, 2)
    ahead = bench.now + timedelta(days=3650)
    with writing(owner) as connection:
        text = {"device_id": 1, "text": "t", "duration_s": 0, "position": 0, "priority": 0}
        window = {"starts_at": bench.now, "expires_at": bench.now + timedelta(days=7), "wanted": 1}
        connection.execute(messages.insert().values(text | window))
        connection.execute(update(device_work).values(sequence=int(ahead.timestamp())))
    assert blacklist(keeper, ChainMaker(), 1, epochs=64) == [7]
    assert repair_number(keeper, 2) == 1
    set_blacklisted(keeper, 1, is_blacklisted=False)
    with keeper.connect() as connection:
        removed = connection.execute(select(messages.c.removed_at)).scalar_one()
        held = connection.execute(select(entitlements.c.device_id)).scalars().all()
    assert removed is not None
    assert held == [2]
    for engine in (owner, keeper):
        engine.dispose()


def test_the_scripts_have_no_flaw_that_shellcheck_knows() -> None:
    scripts = [path for path in DEPLOY.iterdir() if path.read_bytes().startswith(b"#!")]
    assert scripts
    subprocess.run(["shellcheck", *scripts], check=True)
