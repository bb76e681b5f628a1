"""What is written through the API is found in no file of the encrypted cluster; keys nowhere.

The same orders into a server as it comes are found in its files: the search can fail.
"""

import asyncio
import base64
import secrets
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from gateway_sms import gateway
from sqlalchemy import Engine

from portcullis.emmg.config import EmmgConfig
from portcullis.emmg.worker import Worker
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.store.database import engine_for
from portcullis.store.migrate import migrate
from tests.cluster import Cluster
from tests.conftest import running_mariadb
from tests.integration.encryptor_process import (
    EncryptorProcess,
    insert_device_keys,
    running,
    seal_device_keys,
)

pytestmark = pytest.mark.xdist_group("cluster")

DEVICE = 1_098_765_432_109
OSM = "Please call us: the word is quokka-Zwergspitz"
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


@dataclass
class Keys:
    """The encryptor's keys, as they must be found nowhere."""

    device_key: bytes
    master_file: Path

    def forms(self) -> Iterator[bytes]:
        """Raw, in hex and in Base64, whole and the half of it."""
        values = [self.device_key]
        text = self.master_file.read_text()
        values += [bytes.fromhex(word) for word in text.replace('"', " ").split() if _is_key(word)]
        assert len(values) > 1, "the master key file is not read as it is written"
        for value in values:
            for part in (value, value[: len(value) // 2]):
                yield part
                yield part.hex().encode()
                yield base64.b64encode(part).rstrip(b"=")[:-1]


def _is_key(word: str) -> bool:
    return len(word) == 64 and all(letter in "0123456789abcdef" for letter in word)


def _found(directories: Iterable[Path], wanted: Iterable[bytes]) -> set[str]:
    """Names of the files below that hold any of these bytes."""
    forms = list(wanted)
    return {
        path.name
        for directory in directories
        for path in directory.rglob("*")
        if path.is_file()
        for data in [path.read_bytes()]
        if any(form in data for form in forms)
    }


def _write(
    url: str, home: Path, keys: Keys, client: EncryptorClient, engines: tuple[Engine, Engine]
) -> None:
    """Import a device key, order through HTTP, have it sealed."""
    importer, sealing = engines
    insert_device_keys(importer, seal_device_keys(client, [(DEVICE, keys.device_key)]))

    async def order() -> None:
        async with gateway(url, home / "requests.jsonl") as sms:
            assert (await sms.http.put("/products/101", json={"name": NAME})).is_success
            added = await sms.post("/adddevice", transaction_id=TRANSACTION, device_id=str(DEVICE))
            shown = await sms.post(
                "/generateosm",
                transaction_id="m",
                device_id=str(DEVICE),
                text=OSM,
                duration_s=0,
            )
            assert (added.status_code, shown.status_code) == (202, 202)

    asyncio.run(order())
    assert Worker(sealing, client, EmmgConfig(), threading.Event()).round()


def test_nothing_ordered_is_found_in_the_clusters_files_and_no_key_anywhere(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Tables, redo log, binary and relay logs of all three servers, backups, error logs."""
    encryptor = EncryptorProcess(tmp_path)
    encryptor.init()
    keys = Keys(secrets.token_bytes(32), tmp_path / "master.json")
    backups = {name: tmp_path / name for name in ("encrypted", "clear")}
    with running(encryptor) as client, running_mariadb("--log-bin=binlog") as clear:
        engines = (
            engine_for(cluster.url("portcullis_keys")),
            engine_for(cluster.url("portcullis_emmg")),
        )
        _write(cluster.multi_url("portcullis_gateway"), tmp_path, keys, client, engines)
        for engine in engines:
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
        _write(url, tmp_path, keys, client, (engine, engine))
        engine.dispose()
        login = ["--no-defaults", f"--socket={clear.home}/s", "--user=root"]
        _back_up(["mariadb-backup", *login], backups["clear"])
        clear.process.terminate()
        clear.process.wait()

        for marker, forms in MARKERS.items():
            assert _found([*servers, backups["encrypted"]], forms) == set(), marker
            for what, pattern in FILES.items():
                files = _found([clear.home], forms)
                assert any(Path(name).match(pattern) for name in files), (marker, what, files)
            assert _found([backups["clear"]], forms), marker

        everywhere = [*servers, clear.home, *backups.values()]
        assert _found(everywhere, keys.forms()) == set()
        logs = [tmp_path / name for name in ("encryptor.log", "requests.jsonl")]
        for log in logs:
            text = log.read_bytes()
            assert text
            assert not any(form in text for form in keys.forms()), log
    cluster.heal()


def _back_up(command: list[str], target: Path) -> None:
    done = subprocess.run(
        [*command, "--backup", f"--target-dir={target}"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
