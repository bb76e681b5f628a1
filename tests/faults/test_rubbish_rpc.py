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

from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorUnavailableError
from tests.faults.figures import record
from tests.faults.scale import IS_FULL
from tests.integration.encryptor_process import EncryptorProcess, seal_device_keys

CALLS = 30_000 if IS_FULL else 600
DEADLINE_S = 30.0
SERVICE = "/portcullis.encryptor.v1.Encryptor/"
METHODS = ("Seal", "SealStates", "MakeChain", "SameKeys", "Rewrap", "Verify", "Info", "Nothing")
STREAM = "ImportDeviceKeys"
EXPECTED = {"OK", "INVALID_ARGUMENT", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}
"""The last: an import is refused while the one before it is still being cleared away."""
ODD = (0, 1, 2, 255, 256, 65_535, 65_536, 2**31 - 1, 2**32 - 1)
WIDE = (*ODD, 2**40 - 1, 2**40, 2**63 - 1, 2**64 - 1)


@pytest.fixture
def encryptor(tmp_path: Path) -> Iterator[EncryptorProcess]:
    """An encryptor of its own process."""
    process = EncryptorProcess(tmp_path)
    command = [sys.executable, "-m", "portcullis.cli.main", "keys", "init"]
    subprocess.run([*command, "--config", str(process.config)], check=True)
    process.start()
    process.wait_ready()
    yield process
    process.kill()


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


def odd_states(rng: Random, device: pb.SealedKey, product: pb.SealedKey) -> pb.SealStatesRequest:
    """States in columns, values out of every range; at times a column is too short."""
    states, entitlements = rng.choice((0, 1, 3)), rng.choice((0, 1, 12))

    def column(values: tuple[int, ...], length: int) -> list[int]:
        return rng.choices(values, k=length if rng.random() < 0.98 else rng.randrange(5))

    total = states * entitlements
    return pb.SealStatesRequest(
        ca_system_id=rng.choice((0xFFF0, *ODD)),
        utc=rng.choice((1, 1, 1, *WIDE[:-1], -1, -(2**63))),
        product_keys=[odd_key(rng, product) for _ in range(rng.choice((0, 1, 2)))],
        grants=[
            pb.Grant(product_id=101, epoch=rng.choice((1, *ODD)), key=rng.choice((0, 1)))
            for _ in range(rng.choice((0, 1, 2)))
        ],
        labels=[
            pb.DeviceKeyLabel(last_epoch=rng.choice((65_535, *ODD)), master_id=device.master_id)
            for _ in range(rng.choice((0, 1, 2)))
        ],
        addresses=column((device.owner, device.owner, *WIDE), states),
        epochs=column((1, *ODD), states),
        numbers=column((1, *WIDE), states),
        device_key_labels=column((0, 0, 1, 2**32 - 1), states),
        device_keys=[odd_key(rng, device).blob for _ in range(states)],
        active=column((0, 1), states),
        entitlements=column((entitlements,) * 9 + ODD, states),
        entitlement_grants=column((0, 0, 1, 2**32 - 1), total),
        entitlement_starts_at=column((0, *WIDE[:-1], -1), total),
        entitlement_ends_at=column((2**32, *WIDE[:-1], -1), total),
    )


def rubbish(rng: Random, device: pb.SealedKey, product: pb.SealedKey) -> bytes:
    """A request: meant for one of the calls, or for none; whole, or damaged."""
    match rng.randrange(8):
        case 0:
            return rng.randbytes(rng.choice((0, 1, 10, 300, 70_000)))
        case 1:
            request = pb.MakeChainRequest(
                product_id=rng.choice(ODD),
                first_epoch=rng.choice(ODD),
                last_epoch=rng.choice(ODD),
            ).SerializeToString()
        case 2:
            pairs = [
                pb.SameKeysRequest.Pair(held=odd_key(rng, device), offered=odd_key(rng, device))
                for _ in range(rng.choice((0, 1, 3, 1001)))
            ]
            request = pb.SameKeysRequest(pairs=pairs).SerializeToString()
        case 3:
            sealed = [odd_key(rng, rng.choice((device, product))) for _ in range(3)]
            request = pb.RewrapRequest(keys=sealed).SerializeToString()  # as Verify's is
        case 4 | 5:
            request = odd_states(rng, device, product).SerializeToString()
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


def vendor_file(rng: Random) -> list[bytes]:
    """A vendor key file in pieces: lines of every kind, or what is none."""
    lines = [
        b"device_id,key_hex",
        b"%d,%s"
        % (rng.choice(WIDE), rng.randbytes(rng.choice((0, 15, 16, 32, 99))).hex().encode()),
        b"7," + b"g" * 32,
        rng.randbytes(40),
        b"," * 200,
        b"x" * rng.choice((10, 200_000)),
        b"age-encryption.org/v1\n-> X25519 " + rng.randbytes(30).hex().encode(),
        b"-----BEGIN AGE ENCRYPTED FILE-----",
        b"\xff\xfe\x00",
        b"",
    ]
    data = b"\n".join(rng.choices(lines, k=rng.randint(0, 6)))
    cut = rng.randrange(len(data) + 1)
    pieces = [
        pb.VendorFile(data=data[:cut], skip_lines=rng.choice((0, 0, 1, 2**63))).SerializeToString(),
        pb.VendorFile(data=data[cut:]).SerializeToString(),
    ]
    return pieces if rng.random() < 0.8 else [rng.randbytes(30), *pieces]


@pytest.mark.timeout(1800)
def test_no_call_does_harm(encryptor: EncryptorProcess, seed: int) -> None:
    """Every call is answered in time with what its documentation says; none is a server's error."""
    rng = Random(seed)
    came: Counter[str] = Counter()
    started = time.monotonic()
    with encryptor.client() as client, grpc.insecure_channel(encryptor.address) as channel:
        [device] = seal_device_keys(client, [(1001, bytes(32))])
        product = client.make_chain(101, 1, 100)
        calls = {method: channel.unary_unary(SERVICE + method) for method in METHODS}
        stream = channel.stream_stream(SERVICE + STREAM)
        for _ in range(CALLS):
            method = rng.choice((*METHODS, STREAM))
            data = vendor_file(rng) if method == STREAM else [rubbish(rng, device, product)]
            try:
                if method == STREAM:
                    list(stream(iter(data), timeout=DEADLINE_S))
                else:
                    calls[method](data[0], timeout=DEADLINE_S)
                came["OK"] += 1
            except grpc.RpcError as error:
                code = error.code().name
                came[code] += 1
                said = f"{code} {error.details()} to {method} {b' '.join(data).hex()[:2000]}"
                assert code in EXPECTED, said
        state = pb.State(active=True, utc=1)
        good = pb.SealItem(address=1001, epoch=1, number=1, device_key=device, state=state)
        reply = client.seal(0xFFF0, [product], [good])
        assert reply.items[0].sections
        end = time.monotonic() + DEADLINE_S
        while True:  # "another import runs" must pass
            try:
                assert seal_device_keys(client, [(1002, bytes(32))])[0].owner == 1002
                break
            except EncryptorUnavailableError:
                assert time.monotonic() < end
                time.sleep(0.1)
    assert encryptor.ready() == {}
    assert "Traceback" not in encryptor.log.read_text()
    record(
        "6-rpc",
        "rubbish protobufs to the encryptor",
        for_s=time.monotonic() - started,
        calls=CALLS,
        refused=came.total() - came["OK"],
        server_errors=0,
        seed=seed,
    )
