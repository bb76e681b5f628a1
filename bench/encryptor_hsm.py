"""`encryptor-hsm`: EMMs per core-second of an encryptor on SoftHSM, beside one on a file.

Warm: the KEKs of the boxes are in the encryptor's cache. Cold: each device key is to be opened,
in the token or under the file's master. The file of OpenSSL and the token of SoftHSM both work
in the encryptor's own process, so its CPU is all there is; a token behind a cable takes its own
time as well, which `cold` then waits for and `warm` does not.
"""

import itertools
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pkcs11

from bench import raw_sealer
from bench.encryptor import states_of
from bench.headend import init_keys
from bench.mariadb import free_port
from bench.measure import Measured, cpu_s, in_rounds, median_ratio, medians
from bench.processes import folder, service
from bench.result import Criterion, Result
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorClient

_BATCH = 500
_CALLS = 8
_BOXES = _BATCH * _CALLS
_WARM_TIMES = 4
_ROUNDS = 9
_MODULE = "/usr/lib/softhsm/libsofthsm2.so"
_TOKEN, _PIN = "bench", "471147"


@dataclass
class Subject:
    """One encryptor, its boxes, and how many of them have been sealed for."""

    pid: int
    client: EncryptorClient
    products: list[pb.SealedKey]
    boxes: Iterator[int]

    def fresh(self) -> list[list[pb.SealedKey]]:
        """Device keys that this encryptor has not opened yet, by the call; sealed by itself."""
        lines = [f"{next(self.boxes)},{secrets.token_hex(32)}\n" for _ in range(_BOXES)]
        batches = self.client.import_vendor_file(["".join(lines).encode()], 0)
        keys = [one.key for batch in batches for one in batch.keys]
        return [keys[start : start + _BATCH] for start in range(0, _BOXES, _BATCH)]

    def seal(self, calls: list[list[pb.SealedKey]]) -> float:
        """Seal a state of five products for each; CPU seconds of the encryptor an EMM."""
        now = int(time.time())
        requests = [states_of(self.products, keys, now) for keys in calls]
        begun = cpu_s(self.pid)
        for request in requests:
            assert not self.client.seal_states(request).refusals
        return (cpu_s(self.pid) - begun) / (len(calls) * _BATCH)

    def cold(self) -> float:
        """Boxes that were never sealed for."""
        return self.seal(self.fresh())

    def warm(self) -> Measured:
        """Always the same boxes; their KEKs are in the cache from now on."""
        calls = self.fresh()
        self.seal(calls)
        return lambda: self.seal(calls * _WARM_TIMES)


@contextmanager
def _encryptor(home: Path, custody: str) -> Iterator[Subject]:
    home.mkdir()
    monitor, config = f"127.0.0.1:{free_port()}", home / "portcullis.toml"
    config.write_text(
        f'[encryptor]\nlisten = "unix:{home}/e.sock"\nmonitor = "{monitor}"\n'
        f'master_key_file = "{home}/master.json"\n{custody}',
        encoding="utf-8",
    )
    init_keys(config)
    with (
        service("encryptor", config, monitor) as process,
        EncryptorClient(f"unix:{home}/e.sock", deadline_s=60) as client,
    ):
        products = [
            client.make_chain(product_id, 1, 64) for product_id in range(1, raw_sealer.PRODUCTS + 1)
        ]
        yield Subject(process.pid, client, products, itertools.count(1))


def _make_token(home: Path) -> str:
    """A SoftHSM token; returns the encryptor's configuration for it."""
    (home / "tokens").mkdir()
    config, pin = home / "softhsm2.conf", home / "pin"
    config.write_text(
        f"directories.tokendir = {home}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n",
        encoding="utf-8",
    )
    os.environ["SOFTHSM2_CONF"] = str(config)
    pin.write_text(_PIN, encoding="utf-8")
    pin.chmod(0o600)
    command = ["softhsm2-util", "--init-token", "--free", "--label", _TOKEN]
    subprocess.run(
        [*command, "--pin", _PIN, "--so-pin", "0" + _PIN], check=True, capture_output=True
    )
    return f'[encryptor.pkcs11]\nmodule = "{_MODULE}"\ntoken = "{_TOKEN}"\npin_file = "{pin}"\n'


@contextmanager
def _bare_token() -> Iterator[Measured]:
    """CPU seconds of C_DecryptInit and C_Decrypt of a device key under the encryptor's master."""
    with pkcs11.lib(_MODULE).get_token(token_label=_TOKEN).open(user_pin=_PIN) as session:
        (key,) = session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY})
        assert isinstance(key, pkcs11.EncryptMixin)
        assert isinstance(key, pkcs11.DecryptMixin)
        gcm, parameters = pkcs11.Mechanism.AES_GCM, pkcs11.GCMParams(bytes(12), bytes(31), 128)
        blob = key.encrypt(bytes(32), mechanism=gcm, mechanism_param=parameters)

        def measured() -> float:
            begun = cpu_s()
            for _ in range(_BOXES):
                key.decrypt(blob, mechanism=gcm, mechanism_param=parameters)
            return (cpu_s() - begun) / _BOXES

        yield measured


def run() -> Result:
    """Measure."""
    with folder() as home, ExitStack() as stack:
        custody = _make_token(home)
        file = stack.enter_context(_encryptor(home / "file", ""))
        token = stack.enter_context(_encryptor(home / "token", custody))
        rounds = in_rounds(
            {
                "file, warm": file.warm(),
                "token, warm": token.warm(),
                "file, cold": file.cold,
                "token, cold": token.cold,
                "bare": stack.enter_context(_bare_token()),
            },
            _ROUNDS,
        )
    found = medians(rounds)
    return Result(
        "encryptor-hsm",
        "the same encryptor with its master in a file; cold: that, and the token's bare C_Decrypt",
        [
            Criterion(
                "EMMs per core-second, KEKs cached, token against file",
                median_ratio(rounds, lambda one: one["file, warm"] / one["token, warm"]),
                0.8,
                0.95,
            ),
            Criterion(
                "EMMs per core-second, each device key opened, against file and bare C_Decrypt",
                median_ratio(
                    rounds, lambda one: (one["file, cold"] + one["bare"]) / one["token, cold"]
                ),
                0.5,
                0.8,
            ),
        ],
        {
            f"EMMs per core-second, {name}": round(1 / found[name])
            for name in ("file, warm", "token, warm", "file, cold", "token, cold")
        }
        | {"bare C_Decrypt of SoftHSM per core-second": round(1 / found["bare"])},
    )
