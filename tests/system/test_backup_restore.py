"""All is lost but a backup: docs/operations/backup-restore.md is followed to the letter.

The boxes stay on the whole time, as boxes do.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from watcher import Watcher

from demo.headend import HeadEnd, make_boxes
from demo.sms import SmsClient
from tests.cluster import Cluster
from tests.operations import blocks, run

pytestmark = pytest.mark.xdist_group("cluster")

PAGE = "backup-restore.md"
REVOKED, KEPT, NEW = "1001", "1002", "1003"
GATEWAY = 0  # its place in HeadEnd.monitors
LOST: list[tuple[str, dict[str, object]]] = [
    ("removeentitlement", {"transaction_id": "l1", "device_id": REVOKED, "product_id": 101}),
    ("adddevice", {"transaction_id": "l2", "device_id": NEW}),
    ("addentitlement", {"transaction_id": "l3", "device_id": NEW, "product_id": 101}),
]
"""What is ordered after the backup was taken."""


class Sms:
    """An SMS that keeps what was accepted."""

    def __init__(self, home: Path) -> None:
        self._client = SmsClient(home / "state" / "client.json")
        self.accepted: list[tuple[str, str]] = []
        self.client_id = json.loads((home / "state" / "client.json").read_text())["client_id"]

    async def __aenter__(self) -> Self:
        await self._client.sign_in()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._client.close()

    async def order(self, op: str, **body: object) -> None:
        """Send one order, which must be accepted."""
        answer = await self._client.call("POST", f"/{op}", body)
        assert answer.status_code == 202, answer.text
        self.accepted.append((self.client_id, str(body["transaction_id"])))

    async def product(self, product_id: int) -> None:
        """Put a product into the catalogue."""
        assert (await self._client.call("PUT", f"/products/{product_id}", {"name": "p"})).is_success

    async def device(self, device_id: str) -> dict[str, Any]:
        """A device as the head-end has it."""
        answer: dict[str, Any] = (await self._client.call("GET", f"/devices/{device_id}")).json()
        return answer


@pytest.fixture
def restored_cluster() -> Iterator[Cluster]:
    """Three new servers with the key file of the old ones, and nothing in them yet."""
    cluster = Cluster()
    try:
        for node in cluster.nodes.values():
            node.start()
        yield cluster
    finally:
        cluster.__exit__(None, None, None)


@pytest.mark.timeout(300)
def test_boxes_end_right_after_all_was_lost_but_a_backup(
    cluster: Cluster,
    restored_cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who was revoked since stays so; who was granted since has it once the SMS has repeated it."""
    monkeypatch.setenv("PORTCULLIS_MUX__INPUT", "filler")
    monkeypatch.setenv("PORTCULLIS_DATABASE__URL", cluster.multi_url("portcullis_migrate"))
    (tmp_path / "state").mkdir()
    make_boxes(tmp_path, [REVOKED, KEPT, NEW])
    head_end = HeadEnd(tmp_path, Path("unused"))
    backup = tmp_path / "backup"
    replica = next(name for name in cluster.nodes if name != cluster.primary)

    with head_end.running():
        keys = str(tmp_path / "state" / "devices.csv")
        run(f"portcullis keys import-devices {keys} --config {head_end.config}", tmp_path)
        watcher = Watcher(head_end)
        try:
            asyncio.run(_before(Sms(tmp_path), watcher))
            cluster.catch_up()
            [back_up] = blocks(PAGE, "Back up")
            run(back_up, tmp_path, cluster.nodes[replica], BACKUP=str(backup))
            number = asyncio.run(_lost(Sms(tmp_path), watcher))
        except BaseException:
            watcher.close()
            raise
    try:
        on_servers, first, roles, restored, resynchronised = blocks(PAGE, "Restore")
        nodes = restored_cluster.nodes
        for node in nodes.values():
            run(on_servers, tmp_path, node, BACKUP=str(backup), DATA=str(node.data))
        run(first, tmp_path, nodes["db1"])
        places = dict(zip(("FIRST", "SECOND", "THIRD"), restored_cluster.hosts, strict=True))
        run(roles, tmp_path, DIRECTORY=str(restored_cluster.shared), **places)

        url = restored_cluster.multi_url("portcullis_migrate")
        monkeypatch.setenv("PORTCULLIS_DATABASE__URL", url)
        (tmp_path / "migrate.toml").write_text("")  # the environment says where
        _run_with_files(restored, tmp_path, BACKUP=str(backup))
        with head_end.running():
            asyncio.run(_repeated(head_end, Sms(tmp_path), watcher, number, resynchronised))
    finally:
        watcher.close()
    gained = [line for line in watcher.seen if "gained" in line and REVOKED in line]
    assert len(gained) == 1  # before the backup; never again


async def _before(sms: Sms, watcher: Watcher) -> None:
    async with sms:
        await sms.product(101)
        for device_id in (REVOKED, KEPT):
            await sms.order("adddevice", transaction_id=f"a{device_id}", device_id=device_id)
            grant = {"device_id": device_id, "product_id": 101}
            await sms.order("addentitlement", transaction_id=f"g{device_id}", **grant)
            await asyncio.to_thread(watcher.until, device_id, "entitlement_gained")


async def _lost(sms: Sms, watcher: Watcher) -> int:
    """What the backup does not know; returns the number of the last state of REVOKED."""
    async with sms:
        for op, body in LOST:
            await sms.order(op, **body)
        await asyncio.to_thread(watcher.until, NEW, "entitlement_gained")
        assert any("entitlement_lost" in line and REVOKED in line for line in watcher.seen)
        return int((await sms.device(REVOKED))["number"])


async def _repeated(
    head_end: HeadEnd, sms: Sms, watcher: Watcher, number: int, resynchronised: str
) -> None:
    async with sms:
        assert "SMS has to repeat" in str(_ready(head_end, GATEWAY)["degraded"])
        held = await sms.device(REVOKED)
        assert [one["product_id"] for one in held["entitlements"]] == [101]  # as in the backup
        # What is ordered now is aired: the carousel runs, and gives REVOKED nothing back.
        text = {"text": "back on air", "duration_s": 0}
        await sms.order("generateosm", transaction_id="m1", device_id=KEPT, **text)
        await asyncio.to_thread(watcher.until, KEPT, "back on air")
        assert (await sms.device(REVOKED))["number"] < number

        for op, body in LOST:
            await sms.order(op, **body)
        ledger = head_end.home / "accepted.csv"
        ledger.write_text("".join(f"{client},{one}\n" for client, one in sms.accepted))
        _run_with_files(resynchronised, head_end.home)
        assert _ready(head_end, GATEWAY)["degraded"] == {}
        # Every box that holds a right is given the new chain's key beside the old one's.
        await asyncio.to_thread(watcher.until, KEPT, '"event": "state"')
        after = await sms.device(REVOKED)
        assert after["entitlements"] == []
        assert after["number"] > number


def _run_with_files(block: str, home: Path, **variables: str) -> None:
    """Run a block whose files lie in `home`."""
    for name in ("migrate.toml", "accepted.csv"):
        block = block.replace(name, str(home / name))
    run(block, home, **variables)


def _ready(head_end: HeadEnd, place: int) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"http://127.0.0.1:{head_end.monitors[place]}/readyz").json()
    return answer
