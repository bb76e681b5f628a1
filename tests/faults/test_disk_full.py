"""Proof 4: the logs' disk is full; orders are taken and aired, and no line of a log is lost."""

import json
import os
import resource
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from portcullis.cycler.asrun import query
from tests.conftest import MariaDb
from tests.faults.figures import record
from tests.faults.scale import IS_FULL
from tests.faults.single import Single
from tests.faults.sms import Sms, read_ledger
from tests.faults.verdict import wrong_boxes

FULL_S = 60.0 if IS_FULL else 4.0
BOXES = 60 if IS_FULL else 12
SOON_S = 30.0
SETTLE_S = 90.0
DISK = 'mount -t tmpfs -o size=32m tmpfs {path} && exec "$@"'


class Disk:
    """The disk of one room's log: a small tmpfs in a mount namespace of the room's own.

    Where this user may not mount, the kernel refuses writes by RLIMIT_FSIZE instead (EFBIG).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir()
        unshare = (
            ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--map-root-user", "-m"]
        )
        mount = [*unshare, "sh", "-c", DISK.format(path=path), "sh"]
        tried = subprocess.run([*mount, "true"], check=False, capture_output=True)
        self.is_mounted = tried.returncode == 0
        self.prefix = mount if self.is_mounted else []

    def seen_by(self, pid: int) -> Path:
        """Where the room's directory is for us."""
        return Path(f"/proc/{pid}/root{self._path}") if self.is_mounted else self._path

    @contextmanager
    def full(self, pid: int) -> Iterator[None]:
        """Refuse whatever the process writes."""
        if not self.is_mounted:
            soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
            yield
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
            return
        filler = self.seen_by(pid) / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                yield
        filler.unlink()


def wait_for(holds: Callable[[], bool]) -> float:
    """Wait until a monitoring port tells so; returns the seconds it took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < SOON_S
        time.sleep(0.05)  # a monitoring port is asked, it does not tell
    return time.monotonic() - started


@pytest.mark.timeout(600)
def test_orders_go_on_while_the_logs_cannot_be_written(mariadb: MariaDb, seed: int) -> None:
    """`/readyz` stays 200 and says what is degraded; then every line and every airing is there."""
    with tempfile.TemporaryDirectory(prefix="portcullis-disk-", dir="/var/tmp") as directory:
        home = Path(directory)
        disks = {"gateway": Disk(home / "log"), "cycler": Disk(home / "asrun")}
        single = Single(home, mariadb.new_database(), BOXES)
        single.replace('request_log = ".*"', f'request_log = "{home}/log/requests.jsonl"')
        prefixes = {room: disk.prefix for room, disk in disks.items()}
        with single.running(prefixes) as boxes:
            pids = {room: single.pid(room) for room in disks}
            with Sms(
                single.access, single.ledger, single.devices, seed=seed, run="d", pause_s=0.5
            ) as sms:
                single.go_on(sms, 1.0)
                with (
                    disks["gateway"].full(pids["gateway"]),
                    disks["cycler"].full(pids["cycler"]),
                ):
                    for room in disks:
                        wait_for(lambda room=room: bool(_degraded(single, room)))
                    single.go_on(sms, FULL_S)
                    degraded = {room: _degraded(single, room) for room in disks}
                    waiting = single.metric(
                        "gateway", "portcullis_gateway_request_log_waiting_lines"
                    )
                    refused = single.metric("cycler", "portcullis_cycler_asrun_errors_total")
                recovery_s = max(
                    wait_for(lambda room=room: not _degraded(single, room)) for room in disks
                )
                single.go_on(sms, 1.0)
            assert any("request log" in name for name in degraded["gateway"])
            assert any("as-run log" in name for name in degraded["cycler"])
            assert waiting > 0
            assert refused > 0
            assert sms.surprises == []
            assert wrong_boxes(boxes, single.ledger, SETTLE_S) == {}
            logged = _logged(disks["gateway"].seen_by(pids["gateway"]) / "requests.jsonl")
            promised = [line["body"]["transaction_id"] for line in read_ledger(single.ledger)]
            assert Counter(logged) == Counter(promised)
            aired = single.metric("cycler", "portcullis_cycler_aired_emms_total")
            asrun = disks["cycler"].seen_by(pids["cycler"])
            wait_for(lambda: sum(1 for _ in query(asrun)) >= aired)
            kept = sum(1 for _ in query(asrun))
            assert kept <= single.metric("cycler", "portcullis_cycler_aired_emms_total")
            assert single.metric("gateway", "portcullis_gateway_request_log_lost_lines_total") == 0
            assert single.metric("cycler", "portcullis_cycler_asrun_lost_records_total") == 0
            single.verdict(sms)
    record(
        "4-disk",
        "the disk of request log and as-run log full",
        for_s=FULL_S,
        orders=sms.answered,
        lost=0,
        boxes_wrong=0,
        worst_gap_s=sms.worst_gap_s,
        worst_recovery_s=recovery_s,
        lines_that_waited=waiting,
        airings_logged=kept,
        by="tmpfs" if disks["gateway"].is_mounted else "RLIMIT_FSIZE",
        seed=seed,
    )


def _degraded(single: Single, room: str) -> dict[str, str]:
    answer = httpx.get(f"http://127.0.0.1:{single.monitors[room]}/readyz", timeout=20)
    assert answer.status_code == 200, answer.text
    return {name: why for name, why in answer.json()["degraded"].items() if "log" in name}


def _logged(path: Path) -> list[str]:
    """The transaction ids of accepted orders, as the request log has them; each line whole."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        line["transaction_id"]
        for line in lines
        if line["outcome"] in ("ok", "accepted") and "transaction_id" in line
    ]
