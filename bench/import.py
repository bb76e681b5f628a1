"""`import`: device keys by `portcullis keys import-devices`, beside a prebuilt INSERT."""  # noqa: N999 (the name of the benchmark)

import json
import secrets
import subprocess
import time
from pathlib import Path

import pyrage

from bench.headend import init_keys
from bench.mariadb import Server, free_port, prebuilt_insert, server
from bench.measure import interleave
from bench.processes import PORTCULLIS, folder, service
from bench.result import Criterion, Result

_KEYS = 200_000
_ROUNDS = 3
_MANY = 1_000_000


def _vendor_file(path: Path, recipient: str, keys: int) -> Path:
    """Keys of boxes in no order, encrypted to the head-end, as a chip vendor sends them."""
    first = 4_800_000_000
    order = list(range(first, first + keys))
    secrets.SystemRandom().shuffle(order)
    lines = "".join(f"{device},{secrets.token_hex(16)}\n" for device in order)
    to = pyrage.x25519.Recipient.from_str(recipient)
    path.write_bytes(pyrage.encrypt(f"device_id,key_hex\n{lines}".encode(), [to]))
    return path


def _import_s(database: Server, config: Path, file: Path, keys: int) -> float:
    """Seconds that the command takes from its start to its end, on an empty table."""
    database.run("TRUNCATE `keys`")
    command = [*PORTCULLIS, "keys", "import-devices", str(file), "--json", "--config", str(config)]
    begun = time.perf_counter()
    said = subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - begun
    assert json.loads(said.stdout)["imported"] == keys
    return seconds


def run() -> Result:
    """Measure."""
    with server() as database, folder() as home:
        monitor = f"127.0.0.1:{free_port()}"
        config = home / "portcullis.toml"
        config.write_text(
            f'[database]\nurl = "{database.url}"\n[encryptor]\nlisten = "unix:{home}/e.sock"\n'
            f'monitor = "{monitor}"\nmaster_key_file = "{home}/master.json"\n'
            f'[keys]\nencryptor = "unix:{home}/e.sock"\n',
            encoding="utf-8",
        )
        recipient = init_keys(config)
        some = _vendor_file(home / "some.age", recipient, _KEYS)
        many = _vendor_file(home / "many.age", recipient, _MANY)
        with service("encryptor", config, monitor):
            _import_s(database, config, some, _KEYS)
            insert = prebuilt_insert(database, "keys", home / "keys.sql")
            found = interleave(
                {"import": lambda: _import_s(database, config, some, _KEYS), "insert": insert},
                _ROUNDS,
            )
            million_s = _import_s(database, config, many, _MANY)
    return Result(
        "import",
        "the same rows in a prebuilt INSERT of the `mariadb` client, 1000 a statement",
        [Criterion("device keys per second", found["insert"] / found["import"], 0.2, 0.4)],
        {
            "device keys/s, the file encrypted": round(_KEYS / found["import"]),
            "prebuilt INSERT: rows/s": round(_KEYS / found["insert"]),
            "seconds for a file of 1,000,000": round(million_s),
        },
    )
