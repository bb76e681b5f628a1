"""Proof 5: what is written through the API is in no file of the encrypted cluster, keys in none.

The same orders into a server as it comes are found in its files: the search can fail.
"""

import asyncio
import base64
import json
import secrets
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from sqlalchemy import Engine, select

from portcullis.emmg.config import EmmgConfig
from portcullis.emmg.worker import Worker
from portcullis.encryptor.custodian import open_key
from portcullis.keys import Custody, FileMasters
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.store.database import engine_for
from portcullis.store.keys import insert_chain, sealed_key
from portcullis.store.migrate import migrate
from portcullis.store.schema import emms
from portcullis.store.schema import keys as key_rows
from stbsim.box import Box
from stbsim.emm import derive_kek
from tests.cluster import Cluster
from tests.conftest import running_mariadb
from tests.faults.figures import record
from tests.faults.scale import IS_FULL
from tests.integration.encryptor_process import (
    EncryptorProcess,
    insert_device_keys,
    running,
    seal_device_keys,
)
from tests.integration.gateway_sms import gateway

DEVICE = 1_098_765_432_109
PRODUCT = 101
OSM = "Please call us: the word is quokka-Zwergspitz"
MESSAGES = 2000 if IS_FULL else 200
DEKS = 50 if IS_FULL else 5
"""So many of the EMMs' keys are sought: each takes a search of every file."""
BATCH = 100
_NOTHING = bytes(4096)
"""Files are mostly this; a search is spared it."""
TRANSACTION = "sms-marker-4711-quokka"
NAME = "Wombat bundle 4711"
FILES = {
    "table files": "*.ibd",
    "redo log": "ib_logfile*",
    "binary log": "binlog.0*",
}
MARKERS: Mapping[str, Iterable[bytes]] = {
    # as text in the body; as InnoDB's and as the binary log's number
    "device": (
        str(DEVICE).encode(),
        (DEVICE | 1 << 63).to_bytes(8, "big"),
        DEVICE.to_bytes(8, "little"),
    ),
    "message": (OSM.encode(),),
    "body": (TRANSACTION.encode(), NAME.encode()),
}
CA_SYSTEM_ID = EmmgConfig().ca_system_id


@dataclass
class Keys:
    """The keys, as they must be found nowhere."""

    device_key: bytes
    master_file: Path

    def masters(self) -> Iterator[bytes]:
        """Of the key file."""
        for one in json.loads(self.master_file.read_text()):
            yield bytes.fromhex(one["key"])

    def of(self, engine: Engine) -> set[bytes]:
        """Masters, device and product keys, what the box is given of them, KEK, DEKs."""
        box = Box(DEVICE, self.device_key)
        kek = derive_kek(self.device_key, CA_SYSTEM_ID, DEVICE, 0)
        custody = Custody(FileMasters(self.master_file))
        with engine.connect() as connection:
            sections = connection.execute(select(emms.c.section).order_by(emms.c.part)).scalars()
            first_parts = [one for one in sections.all() if one[9] >> 4 == 1]
            rows = connection.execute(select(key_rows)).mappings().all()
        for section in first_parts:
            box.section(section, CA_SYSTEM_ID)
        opened = {open_key(custody, sealed_key(row)) for row in rows}
        given = {one.key for one in box.entitlements}
        deks = {aes_key_unwrap(kek, section[16:40]) for section in first_parts[:DEKS]}
        assert self.device_key in opened
        assert len(opened) == 2
        assert given
        assert len(first_parts) == MESSAGES + 1
        return {*self.masters(), *opened, *given, kek, *deks}


def forms(values: Iterable[bytes]) -> list[bytes]:
    """The first half of each, raw, in hex and in Base64: the whole has it, too."""
    halves = [value[: len(value) // 2] for value in values]
    return [
        form
        for half in halves
        for form in (half, half.hex().encode(), base64.b64encode(half).rstrip(b"=")[:-1])
    ]


@dataclass
class Search:
    """Looks for bytes in files, and counts what it has read."""

    read_bytes: int = 0

    def found(self, paths: Iterable[Path], wanted: Iterable[bytes]) -> set[str]:
        """Names of the files, at or below these paths, that hold any of these bytes."""
        sought = list(wanted)
        names = set()
        for top in paths:
            for path in top.rglob("*") if top.is_dir() else [top]:
                if path.is_file():
                    data = path.read_bytes()
                    self.read_bytes += len(data)
                    data = data.replace(_NOTHING, b"")
                    if any(one in data for one in sought):
                        names.add(path.name)
        return names


def write(
    url: str, home: Path, keys: Keys, client: EncryptorClient, engines: Mapping[str, Engine]
) -> set[bytes]:
    """Import a device key, order through HTTP, have it all sealed; every key that was used."""
    insert_device_keys(engines["keys"], seal_device_keys(client, [(DEVICE, keys.device_key)]))
    insert_chain(engines["scheduler"], client.make_chain(PRODUCT, 1, 4))

    async def order() -> None:
        async with gateway(url, home / "requests.jsonl") as sms:
            assert (await sms.http.put(f"/products/{PRODUCT}", json={"name": NAME})).is_success
            box = {"device_id": str(DEVICE)}
            orders = [
                {"op": "adddevice", "transaction_id": TRANSACTION} | box,
                {"op": "addentitlement", "transaction_id": "r", "product_id": PRODUCT} | box,
            ]
            orders += [
                {
                    "op": "generateosm",
                    "transaction_id": f"{TRANSACTION}-{number}",
                    "text": f"{OSM} {number}",
                    "duration_s": 0,
                }
                | box
                for number in range(MESSAGES)
            ]
            for start in range(0, len(orders), BATCH):
                body = "\n".join(json.dumps(one) for one in orders[start : start + BATCH])
                answer = await sms.http.post("/batch", content=body)
                said = [json.loads(line)["status"] for line in answer.text.splitlines()]
                assert set(said) == {"accepted"}, answer.text

    asyncio.run(order())
    worker = Worker(engines["emmg"], client, EmmgConfig(), threading.Event())
    while worker.round():
        pass
    return keys.of(engines["scheduler"])


@pytest.mark.timeout(900)
def test_nothing_ordered_is_found_in_the_clusters_files_and_no_key_anywhere(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Tables, redo log, binary and relay logs of all three servers, backups, every log file."""
    encryptor = EncryptorProcess(tmp_path)
    encryptor.init()
    keys = Keys(secrets.token_bytes(32), tmp_path / "master.json")
    backups = {name: tmp_path / name for name in ("encrypted", "clear")}
    search = Search()
    with running(encryptor) as client, running_mariadb("--log-bin=binlog") as clear:
        rooms = ("keys", "emmg", "scheduler")
        engines = {room: engine_for(cluster.url(f"portcullis_{room}")) for room in rooms}
        used = write(cluster.multi_url("portcullis_gateway"), tmp_path, keys, client, engines)
        for engine in engines.values():
            engine.dispose()
        cluster.catch_up()
        primary = cluster.nodes[cluster.primary]
        _back_up(primary.command("mariadb-backup"), backups["encrypted"])
        for node in cluster.nodes.values():
            node.stop()  # whatever it holds in memory is in its files then
        servers = [node.home for node in cluster.nodes.values()]

        url = clear.new_database()
        engine = engine_for(url)
        migrate(engine)
        used |= write(url, tmp_path, keys, client, dict.fromkeys(rooms, engine))
        engine.dispose()
        login = ["--no-defaults", f"--socket={clear.home}/s", "--user=root"]
        _back_up(["mariadb-backup", *login], backups["clear"])
        clear.process.terminate()
        clear.process.wait()

        encrypted = [*servers, backups["encrypted"]]
        found = {marker: search.found(encrypted, wanted) for marker, wanted in MARKERS.items()}
        control = {
            marker: search.found([clear.home, backups["clear"]], wanted)
            for marker, wanted in MARKERS.items()
        }
        assert found == {marker: set() for marker in MARKERS}
        for marker, files in control.items():
            for what, pattern in FILES.items():
                assert any(Path(name).match(pattern) for name in files), (marker, what, files)
            assert search.found([backups["clear"]], MARKERS[marker]), marker

        logs = [encryptor.log, tmp_path / "requests.jsonl"]
        assert all(log.stat().st_size for log in logs)
        everywhere = [*encrypted, clear.home, backups["clear"], *logs]
        assert search.found(everywhere, forms(used)) == set()
        assert search.found([keys.master_file], forms(keys.masters())) == {"master.json"}
    cluster.heal()
    record(
        "5-plaintext",
        "what was ordered, and every key, sought in all files of database, backups and logs",
        orders=MESSAGES + 2,
        searched_mib=search.read_bytes / 2**20,
        markers=len(MARKERS),
        keys=len(used),
        found_in_encrypted=sum(map(len, found.values())),
        keys_found=0,
        found_in_control=sum(map(len, control.values())),
    )


def _back_up(command: list[str], target: Path) -> None:
    done = subprocess.run(
        [*command, "--backup", f"--target-dir={target}"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
