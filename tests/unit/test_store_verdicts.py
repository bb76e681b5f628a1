"""Each point of `portcullis db check` fails for what it is there for, and for nothing else."""

from dataclasses import replace

import pytest

from portcullis.store.inspection import ServerState
from portcullis.store.verdicts import SETTINGS, Verdict, judge

GOOD_SETTINGS = {
    "read_only": "OFF",
    "require_secure_transport": "ON",
    "innodb_encrypt_tables": "FORCE",
    "innodb_encrypt_log": "ON",
    "encrypt_binlog": "ON",
    "innodb_encrypt_temporary_tables": "ON",
    "encrypt_tmp_files": "ON",
    "encrypt_tmp_disk_tables": "ON",
    "aria_encrypt_tables": "ON",
    "general_log": "OFF",
    "slow_query_log": "OFF",
    "innodb_print_all_deadlocks": "OFF",
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_doublewrite": "ON",
    "sync_binlog": "1",
    "log_bin": "ON",
    "binlog_format": "ROW",
    "log_slave_updates": "ON",
    "gtid_strict_mode": "ON",
    "rpl_semi_sync_master_wait_point": "AFTER_SYNC",
    "rpl_semi_sync_master_wait_no_slave": "ON",
    "rpl_semi_sync_master_timeout": "315360000000",
}
PRIMARY = ServerState(
    "db1:3306",
    version="10.11.6-MariaDB-log",
    variables=GOOD_SETTINGS,
    status={"rpl_semi_sync_master_status": "ON", "rpl_semi_sync_master_clients": "1"},
    cipher="TLS_AES_256_GCM_SHA384",
    tablespaces={"innodb_system": True, "portcullis/devices": True},
    clock_ahead_s=0.01,
)
REPLICA = replace(
    PRIMARY,
    server="db2:3306",
    variables=GOOD_SETTINGS | {"read_only": "ON"},
    replica={
        "Slave_IO_Running": "Yes",
        "Slave_SQL_Running": "Yes",
        "Master_SSL_Allowed": "Yes",
        "Master_SSL_Verify_Server_Cert": "Yes",
        "Using_Gtid": "Slave_Pos",
        "Seconds_Behind_Master": 0,
    },
)


def bad(*states: ServerState, schema_problem: str | None = None) -> list[Verdict]:
    return [verdict for verdict in judge(states, schema_problem) if not verdict.is_good]


def test_a_good_cluster_has_no_bad_point() -> None:
    assert bad(PRIMARY, REPLICA) == []


@pytest.mark.parametrize(
    ("point", "name"),
    [(point, name) for point, rules in SETTINGS.items() for name, _, _ in rules],
)
@pytest.mark.parametrize("value", ["0", None])
def test_each_setting_counts_on_each_server(point: str, name: str, value: str | None) -> None:
    """Another value, and a server that does not know the setting."""
    variables = dict(GOOD_SETTINGS)
    del variables[name]
    if value is not None:
        variables[name] = value
    [verdict] = bad(PRIMARY, replace(REPLICA, variables=variables | {"read_only": "ON"}))
    assert (verdict.server, verdict.point) == ("db2:3306", point)
    assert name in verdict.found


@pytest.mark.parametrize(
    ("state", "point", "found"),
    [
        (replace(REPLICA, away="no route"), "answers", "no route"),
        (replace(REPLICA, version="8.4.0"), "version", "8.4.0"),
        (replace(REPLICA, version="10.5.9-MariaDB"), "version", "10.6"),
        (replace(REPLICA, cipher=None), "this connection", "in clear"),
        (replace(REPLICA, tablespaces=None), "table files encrypted", "needs PROCESS"),
        (replace(REPLICA, tablespaces={}), "table files encrypted", "all"),
        (
            replace(REPLICA, tablespaces={"portcullis/keys": False, "system": True}),
            "table files encrypted",
            "in clear: portcullis/keys",
        ),
        (replace(REPLICA, clock_ahead_s=-2.5), "clock", "-2.500 s"),
        (replace(REPLICA, replica=None), "replica", "follows nobody"),
        (replace(REPLICA, replica=None, replica_unseen=True), "replica", "SLAVE MONITOR"),
        (
            replace(REPLICA, replica=dict(REPLICA.replica or {}) | {"Slave_IO_Running": "No"}),
            "replica",
            "Slave_IO_Running is No",
        ),
    ],
)
def test_what_a_server_says_counts(state: ServerState, point: str, found: str) -> None:
    [verdict] = bad(PRIMARY, state)
    assert (verdict.server, verdict.point) == (state.server, point)
    assert found in verdict.found


@pytest.mark.parametrize(
    ("status", "found"),
    [
        ({"rpl_semi_sync_master_clients": "0"}, "0 of 1 replicas"),
        ({"rpl_semi_sync_master_status": "OFF"}, "rpl_semi_sync_master_enabled is OFF"),
    ],
)
def test_a_primary_needs_its_replicas(status: dict[str, str], found: str) -> None:
    [verdict] = bad(replace(PRIMARY, status=dict(PRIMARY.status) | status), REPLICA)
    assert verdict.point == "primary"
    assert found in verdict.found


def test_there_is_one_primary() -> None:
    points = [verdict.point for verdict in bad(REPLICA, replace(REPLICA, server="db3:3306"))]
    assert points == ["one primary"]
    two = replace(PRIMARY, server="db3:3306")
    assert [verdict.point for verdict in bad(PRIMARY, two)] == ["one primary"]


def test_the_schema_counts() -> None:
    [verdict] = bad(PRIMARY, REPLICA, schema_problem="of an earlier release")
    assert (verdict.point, verdict.found) == ("schema", "of an earlier release")
