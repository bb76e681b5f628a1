"""`encryptor`: EMMs per core-second of the encryptor's process, beside a bare socket server."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from bench import raw_sealer
from bench.measure import Measured, cpu_s, in_rounds, median_ratio, medians
from bench.processes import PORTCULLIS, folder, running, service, until
from bench.result import Criterion, Result
from portcullis.keys import Custody, KeyRing, MasterKey, Purpose
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorClient

_BATCH = 1000
_CALLS = 30  # other boxes in each: no KEK is found in the cache, as in a re-key
_ROUNDS = 9
_EPOCH = 32
_MONITOR = "127.0.0.1:19103"


def _write_config(home: Path) -> Path:
    config = home / "portcullis.toml"
    config.write_text(
        f'[encryptor]\nlisten = "unix:{home}/encryptor.sock"\nmonitor = "{_MONITOR}"\n'
        f'master_key_file = "{home}/master.json"\n',
        encoding="utf-8",
    )
    subprocess.run(
        [*PORTCULLIS, "keys", "init", "--config", str(config)], check=True, capture_output=True
    )
    return config


def states_of(
    products: Sequence[pb.SealedKey], keys: Sequence[pb.SealedKey], now: int
) -> pb.SealStatesRequest:
    """What an EMMG asks to have sealed: a state for each device key, with all the products."""
    boxes, entitlements = len(keys), len(keys) * len(products)
    label = keys[0]
    return pb.SealStatesRequest(
        ca_system_id=0xFFF0,
        utc=now,
        product_keys=products,
        grants=[
            pb.Grant(product_id=product.owner, epoch=_EPOCH, key=index)
            for index, product in enumerate(products)
        ],
        labels=[
            pb.DeviceKeyLabel(
                first_epoch=label.first_epoch,
                last_epoch=label.last_epoch,
                master_id=label.master_id,
            )
        ],
        addresses=[key.owner for key in keys],
        epochs=[0] * boxes,
        numbers=[now] * boxes,
        device_key_labels=[0] * boxes,
        device_keys=[key.blob for key in keys],
        active=[True] * boxes,
        entitlements=[len(products)] * boxes,
        entitlement_grants=list(range(len(products))) * boxes,
        entitlement_starts_at=[0] * entitlements,
        entitlement_ends_at=range(now + 10**6, now + 10**6 + entitlements),
    )


class Boxes:
    """Boxes that have not been sealed for yet, with their sealed keys and five products."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody
        self._next = 1
        self.products = [
            self._sealed(Purpose.PRODUCT, product, os.urandom(16), 1, 64)
            for product in range(1, raw_sealer.PRODUCTS + 1)
        ]

    def _sealed(
        self, purpose: Purpose, owner: int, key: bytes, first: int, last: int
    ) -> pb.SealedKey:
        label, blob = self._custody.seal(key, purpose, owner, first, last)
        return pb.SealedKey(
            purpose=pb.SealedKey.Purpose.ValueType(purpose),
            owner=owner,
            first_epoch=first,
            last_epoch=last,
            master_id=label.master_id,
            blob=blob,
        )

    def keys(self) -> list[pb.SealedKey]:
        """The device keys of the next batch."""
        first, self._next = self._next, self._next + _BATCH
        return [
            self._sealed(Purpose.DEVICE, device, os.urandom(32), 0, 65535)
            for device in range(first, first + _BATCH)
        ]

    def states(self, now: int) -> pb.SealStatesRequest:
        """The next batch as the EMMG asks for it."""
        return states_of(self.products, self.keys(), now)

    def raw(self, now: int) -> bytes:
        """The next batch as the bare server takes it."""
        entitlements = [
            value
            for index, product in enumerate(self.products)
            for value in (product.owner, _EPOCH, now + 10**6 + index)
        ]
        return b"".join(
            raw_sealer.ITEM.pack(key.owner, now, key.blob, *entitlements) for key in self.keys()
        )


def _through_rpc(client: EncryptorClient, boxes: Boxes, pid: int) -> Measured:
    """Server CPU per EMM, two calls under way at a time as from an EMMG with two workers."""

    def measured() -> float:
        now = int(time.time())
        calls = [boxes.states(now) for _ in range(_CALLS)]

        def work(mine: list[pb.SealStatesRequest]) -> None:
            for call in mine:
                assert not client.seal_states(call).refusals

        threads = [threading.Thread(target=work, args=(calls[i::2],)) for i in range(2)]
        begun = cpu_s(pid)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (cpu_s(pid) - begun) / (_CALLS * _BATCH)

    return measured


def _bare(path: Path, boxes: Boxes, pid: int) -> Measured:
    """CPU per EMM of the bare server."""

    def measured() -> float:
        now = int(time.time())
        calls = [boxes.raw(now) for _ in range(_CALLS)]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            with connection.makefile("rb") as replies:
                begun = cpu_s(pid)
                for call in calls:
                    connection.sendall(len(call).to_bytes(4, "big") + call)
                    replies.read(int.from_bytes(replies.read(4), "big"))
                return (cpu_s(pid) - begun) / (_CALLS * _BATCH)

    return measured


def run() -> Result:
    """Measure."""
    with folder() as home:
        config = _write_config(home)
        (master,) = json.loads((home / "master.json").read_text(encoding="utf-8"))
        custody = Custody(KeyRing([MasterKey(master["master_id"], bytes.fromhex(master["key"]))]))
        boxes = Boxes(custody)
        bare = home / "bare.sock"
        command = [sys.executable, "-m", "bench.raw_sealer", str(bare)]
        with (
            service("encryptor", config, _MONITOR) as ours,
            running([*command, master["key"], master["master_id"]], home / "bare.log") as raw,
            EncryptorClient(f"unix:{home}/encryptor.sock", deadline_s=60) as client,
        ):
            until(bare.exists, raw, home / "bare.log")
            rounds = in_rounds(
                {"rpc": _through_rpc(client, boxes, ours.pid), "bare": _bare(bare, boxes, raw.pid)},
                _ROUNDS,
            )
    found = medians(rounds)
    return Result(
        "encryptor",
        "a length-prefixed Unix socket doing the same cryptography and layout, nothing checked",
        [
            Criterion(
                "EMMs per server core-second against the bare socket",
                median_ratio(rounds, lambda one: one["bare"] / one["rpc"]),
                0.4,
                0.6,
            ),
            Criterion(
                "EMMs per server core-second against 100 a second", 1 / found["rpc"] / 100, 100, 500
            ),
        ],
        {
            "EMMs per server core-second, five products, no KEK in the cache": round(
                1 / found["rpc"]
            ),
            "bare socket": round(1 / found["bare"]),
        },
    )
