"""Proof 6: rubbish protobufs to the encryptor over its socket: refused, and it goes on sealing."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import grpc
import pytest

from demo.headend import free_ports
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorClient
from tests.faults.figures import record
from tests.faults.processes import answers_ok
from tests.faults.scale import IS_FULL
from tests.integration.encryptor_process import seal_device_keys

CALLS = 30_000 if IS_FULL else 600
DEADLINE_S = 30.0
SERVICE = "/portcullis.encryptor.v1.Encryptor/"
METHODS = (
    *("Seal", "MakeChain", "ImportDeviceKeys", "SameKeys", "Rewrap", "Verify", "Info"),
    "Nothing",
)
EXPECTED = {"OK", "INVALID_ARGUMENT", "UNIMPLEMENTED"}
ODD = (0, 1, 2, 255, 256, 65_535, 65_536, 2**31 - 1, 2**32 - 1)
WIDE = (*ODD, 2**40 - 1, 2**40, 2**63 - 1, 2**64 - 1)
CONFIG = """\
[encryptor]
listen = "unix:{home}/encryptor.sock"
master_key_file = "{home}/master.json"
monitor = "127.0.0.1:{monitor}"
"""


@pytest.fixture
def encryptor(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """An encryptor of its own process: its address, the process, its log."""
    [monitor] = free_ports(1)
    config, log = tmp_path / "portcullis.toml", tmp_path / "encryptor.log"
    config.write_text(CONFIG.format(home=tmp_path, monitor=monitor), encoding="utf-8")
    command = [sys.executable, "-m", "portcullis.cli.main"]
    subprocess.run([*command, "keys", "init", "--config", str(config)], check=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "encryptor", "--config", str(config)], stdout=out, stderr=out
        )
    end = time.monotonic() + 60
    while not answers_ok(monitor):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)  # a monitoring port is asked, it does not tell
    yield f"unix:{tmp_path}/encryptor.sock", process, log
    process.kill()
    process.wait()


def odd_key(rng: Random, good: pb.SealedKey) -> pb.SealedKey:
    """A sealed key with something of it changed."""
    key = pb.SealedKey()
    key.CopyFrom(good)
    match rng.randrange(7):
        case 0:
            key.purpose = rng.choice((0, 1, 2, 3, -1))
        case 1:
            key.owner = rng.choice(WIDE)
        case 2:
            key.first_epoch = rng.choice(ODD)
        case 3:
            key.last_epoch = rng.choice(ODD)
        case 4:
            key.master_id = rng.choice(("", "m", "ü" * 100, "\x00", good.master_id))
        case 5:
            key.blob = rng.randbytes(rng.choice((0, 1, 12, 28, 60, 5000)))
    return key


def odd_item(rng: Random, device_key: pb.SealedKey) -> pb.SealItem:
    """An item to seal, its values out of every range."""
    item = pb.SealItem(
        address=rng.choice((*WIDE, device_key.owner)),
        epoch=rng.choice(ODD),
        number=rng.choice(WIDE),
        device_key=odd_key(rng, device_key),
    )
    if rng.random() < 0.5:
        item.address = item.device_key.owner
    match rng.randrange(4):
        case 0:
            item.state.utc = rng.choice((*WIDE[:-1], -1, -(2**63)))
            item.state.active = rng.random() < 0.5
            for _ in range(rng.choice((0, 1, 5, 130, 300))):
                item.state.entitlements.add(
                    product_id=rng.choice(ODD), epoch=rng.choice(ODD), key=rng.choice((0, 1, 9))
                )
        case 1:
            item.message.text = rng.choice(("", "x" * 100_000, "📺" * 3000, "\x00"))
            item.message.duration_s = rng.choice(ODD)
            item.message.position = rng.choice(ODD)
            item.message.priority = rng.choice(ODD)
            item.message.expires_at = rng.choice((*WIDE[:-1], -1, -(2**63)))
        case 2:
            item.withdrawal.expires_at = rng.choice((*WIDE[:-1], -1, -(2**63)))
    return item


def rubbish(rng: Random, device: pb.SealedKey, product: pb.SealedKey) -> bytes:
    """A request: meant for one of the calls, or for none; whole, or damaged."""
    match rng.randrange(6):
        case 0:
            return rng.randbytes(rng.choice((0, 1, 10, 300, 70_000)))
        case 1:
            request = pb.MakeChainRequest(
                product_id=rng.choice(ODD),
                first_epoch=rng.choice(ODD),
                last_epoch=rng.choice(ODD),
            ).SerializeToString()
        case 2:
            lines = [
                f"{rng.choice(WIDE)},{rng.randbytes(rng.choice((0, 16, 99))).hex()}"
                for _ in range(rng.choice((0, 1, 3, 1001)))
            ]
            file = rng.choice((b"", b"age-encryption.org/v1\n")) + "\n".join(lines).encode()
            request = pb.VendorFile(data=file, skip_lines=rng.choice(WIDE)).SerializeToString()
        case 3 if rng.random() < 0.5:
            odd = [odd_key(rng, device) for _ in range(2)]
            pair = pb.SameKeysRequest.Pair(held=odd[0], offered=odd[1])
            request = pb.SameKeysRequest(pairs=[pair]).SerializeToString()
        case 3:
            sealed = [odd_key(rng, rng.choice((device, product))) for _ in range(3)]
            request = pb.RewrapRequest(keys=sealed).SerializeToString()
        case _:
            request = pb.SealRequest(
                ca_system_id=rng.choice(ODD),
                product_keys=[odd_key(rng, product) for _ in range(rng.choice((0, 1, 2)))],
                items=[odd_item(rng, device) for _ in range(rng.choice((0, 1, 3)))],
            ).SerializeToString()
    if rng.random() < 0.3:
        damaged = bytearray(request)
        for _ in range(3):
            at = rng.randrange(len(damaged) + 1)
            damaged[at : at + 1] = rng.randbytes(rng.randint(0, 2))
        return bytes(damaged)
    return request


@pytest.mark.timeout(1800)
def test_no_call_does_harm(encryptor: tuple[str, subprocess.Popen[bytes], Path], seed: int) -> None:
    """Every call is answered in time with what its documentation says; none is a server's error."""
    address, process, log = encryptor
    rng = Random(seed)
    came: Counter[str] = Counter()
    started = time.monotonic()
    with EncryptorClient(address) as client, grpc.insecure_channel(address) as channel:
        [device] = seal_device_keys(client, [(1001, bytes(32))])
        product = client.make_chain(101, 1, 100)
        calls = {method: channel.unary_unary(SERVICE + method) for method in METHODS}
        for _ in range(CALLS):
            data = rubbish(rng, device, product)
            try:
                calls[rng.choice(METHODS)](data, timeout=DEADLINE_S)
                came["OK"] += 1
            except grpc.RpcError as error:
                code = error.code().name
                came[code] += 1
                assert code in EXPECTED, f"{code} {error.details()} to {data.hex()[:2000]}"
        state = pb.State(active=True, utc=1)
        good = pb.SealItem(address=1001, epoch=1, number=1, device_key=device, state=state)
        reply = client.seal(0xFFF0, [product], [good])
        assert reply.items[0].sections
    assert process.poll() is None
    assert "Traceback" not in log.read_text()
    record(
        "6-rpc",
        "rubbish protobufs to the encryptor",
        for_s=time.monotonic() - started,
        calls=CALLS,
        refused=came.total() - came["OK"],
        seed=seed,
    )
