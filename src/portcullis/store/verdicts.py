"""What a production database must be, point by point (pure)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from portcullis.store.inspection import ServerState

MAX_CLOCK_DIFFERENCE_S = 2.0
_A_DAY_MS = 86_400_000
_OLDEST_MARIADB = (10, 6)

ALL = "all servers"


@dataclass(frozen=True)
class Verdict:
    """One point. `found`: what is so; where it is not good, with what it should be."""

    server: str
    point: str
    is_good: bool
    found: str


def _is(wanted: str) -> Callable[[str], bool]:
    return lambda value: value == wanted


Rule = tuple[str, str, Callable[[str], bool]]
"""A global variable, what it should be in words, and whether a value is."""

SETTINGS: Mapping[str, Sequence[Rule]] = {
    "tls": (("require_secure_transport", "ON", _is("ON")),),
    "tables encrypted": (("innodb_encrypt_tables", "FORCE", _is("FORCE")),),
    "redo log encrypted": (("innodb_encrypt_log", "ON", _is("ON")),),
    "binary log encrypted": (("encrypt_binlog", "ON", _is("ON")),),
    "temporary files encrypted": (
        ("innodb_encrypt_temporary_tables", "ON", _is("ON")),
        ("encrypt_tmp_files", "ON", _is("ON")),
        ("encrypt_tmp_disk_tables", "ON", _is("ON")),
        ("aria_encrypt_tables", "ON", _is("ON")),
    ),
    "no log in clear": (
        ("general_log", "OFF", _is("OFF")),
        ("slow_query_log", "OFF", _is("OFF")),
        ("innodb_print_all_deadlocks", "OFF", _is("OFF")),
    ),
    "commits on disk": (
        ("innodb_flush_log_at_trx_commit", "1", _is("1")),
        ("innodb_doublewrite", "ON", _is("ON")),
        ("sync_binlog", "1", _is("1")),
    ),
    # The same on a replica, as it may be promoted.
    "replication loses nothing": (
        ("log_bin", "ON", _is("ON")),
        ("binlog_format", "ROW", _is("ROW")),
        ("log_slave_updates", "ON", _is("ON")),
        ("gtid_strict_mode", "ON", _is("ON")),
        ("rpl_semi_sync_master_wait_point", "AFTER_SYNC", _is("AFTER_SYNC")),
        ("rpl_semi_sync_master_wait_no_slave", "ON", _is("ON")),
        (
            "rpl_semi_sync_master_timeout",
            f"{_A_DAY_MS} or more",
            lambda value: int(value) >= _A_DAY_MS,
        ),
    ),
}


def judge(states: Sequence[ServerState], schema_problem: str | None) -> list[Verdict]:
    """Judge all servers of a cluster; `schema_problem`: of the primary, None if there is none."""
    verdicts = [_one_primary(states)]
    for state in states:
        if state.away is not None:
            verdicts.append(Verdict(state.server, "answers", is_good=False, found=state.away))
            continue
        verdicts.append(_version(state))
        verdicts += [_settings(state, point, rules) for point, rules in SETTINGS.items()]
        verdicts += [_connection(state), _tablespaces(state), _clock(state)]
        replicas = len(states) - 1 or 1
        verdicts.append(_primary(state, replicas) if state.takes_writes else _replica(state))
    found = schema_problem or "of this release"
    return [*verdicts, Verdict(ALL, "schema", schema_problem is None, found)]


def _one_primary(states: Sequence[ServerState]) -> Verdict:
    primaries = [state.server for state in states if state.takes_writes]
    found = ", ".join(primaries) if primaries else "none takes writes"
    return Verdict(ALL, "one primary", len(primaries) == 1, found)


def _version(state: ServerState) -> Verdict:
    numbers = tuple(int(part) for part in state.version.split("-")[0].split(".")[:2])
    is_good = "MariaDB" in state.version and numbers >= _OLDEST_MARIADB
    wanted = "" if is_good else "; this command knows MariaDB 10.6 and newer"
    return Verdict(state.server, "version", is_good, f"{state.version}{wanted}")


def _settings(state: ServerState, point: str, rules: Sequence[Rule]) -> Verdict:
    wrong = []
    for name, wanted, is_good in rules:
        value = state.variables.get(name)
        if value is None:
            wrong.append(f"{name} is not known to the server")
        elif not is_good(value):
            wrong.append(f"{name} is {value}, not {wanted}")
    settings = ", ".join(f"{name} {state.variables.get(name)}" for name, _, _ in rules)
    return Verdict(state.server, point, not wrong, "; ".join(wrong) or settings)


def _connection(state: ServerState) -> Verdict:
    return Verdict(
        state.server,
        "this connection",
        state.cipher is not None,
        state.cipher or "in clear: set database.ssl_ca",
    )


def _tablespaces(state: ServerState) -> Verdict:
    point = "table files encrypted"
    if state.tablespaces is None:
        return Verdict(state.server, point, is_good=False, found="not shown: needs PROCESS")
    clear = [name for name, is_encrypted in state.tablespaces.items() if not is_encrypted]
    if clear or not state.tablespaces:
        found = f"in clear: {', '.join(sorted(clear)) or 'all'}"
        return Verdict(state.server, point, is_good=False, found=found)
    return Verdict(state.server, point, is_good=True, found=f"{len(state.tablespaces)} tablespaces")


def _clock(state: ServerState) -> Verdict:
    is_good = abs(state.clock_ahead_s) <= MAX_CLOCK_DIFFERENCE_S
    return Verdict(state.server, "clock", is_good, f"{state.clock_ahead_s:+.3f} s from here")


def _primary(state: ServerState, replicas: int) -> Verdict:
    clients = int(state.status.get("rpl_semi_sync_master_clients", "0"))
    is_on = state.status.get("rpl_semi_sync_master_status") == "ON"
    found = f"{clients} of {replicas} replicas acknowledge"
    if not is_on:
        found = "rpl_semi_sync_master_enabled is OFF: `cluster promote` puts it on"
    return Verdict(state.server, "primary", is_on and clients >= replicas, found)


def _replica(state: ServerState) -> Verdict:
    if state.replica_unseen:
        found, is_good = "not shown: needs SLAVE MONITOR", False
    elif state.replica is None:
        found, is_good = "follows nobody: `cluster rejoin`", False
    else:
        wrong = [
            f"{name} is {state.replica[name]}"
            for name, wanted in _REPLICATES.items()
            if state.replica.get(name) != wanted
        ]
        lag = state.replica.get("Seconds_Behind_Master")
        found = "; ".join(wrong) or f"receives and applies, {lag} s behind"
        is_good = not wrong
    return Verdict(state.server, "replica", is_good, found)


_REPLICATES = {
    "Slave_IO_Running": "Yes",
    "Slave_SQL_Running": "Yes",
    "Master_SSL_Allowed": "Yes",
    "Master_SSL_Verify_Server_Cert": "Yes",
    "Using_Gtid": "Slave_Pos",
}
