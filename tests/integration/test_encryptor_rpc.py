"""The encryptor as a process: real socket, real client."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from portcullis.emm import State, derive_kek, open_set
from portcullis.keys import init_masters
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import (
    EncryptorClient,
    EncryptorDeclinesError,
    EncryptorError,
    EncryptorUnavailableError,
)
from tests.integration.encryptor_process import seal_device_keys

CAS = 0xFFF0
PROGRAM = """
import sys
import time
from pathlib import Path
from portcullis.encryptor.main import main
from portcullis.runtime.config import ConfigSource, LogConfig
from portcullis.runtime.logging import set_up_logging
from portcullis.runtime.service import run
source = ConfigSource.load(Path(sys.argv[1]), {})
set_up_logging("encryptor", LogConfig())
run(lambda: main(source))
"""


def free_port() -> int:
    """Free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(config: Path) -> subprocess.Popen[str]:
    """Start."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(config)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if '"started"' in line:
            return process
    raise AssertionError("the encryptor did not start")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Config."""
    init_masters(tmp_path / "master.json", "m1")
    path = tmp_path / "portcullis.toml"
    path.write_text(
        "[encryptor]\n"
        f'listen = "unix:{tmp_path}/run/encryptor.sock"\n'
        f'monitor = "127.0.0.1:{free_port()}"\n'
        f'master_key_file = "{tmp_path}/master.json"\n'
    )
    return path


@pytest.fixture
def client(config: Path) -> Iterator[EncryptorClient]:
    """Client."""
    process = start(config)
    with EncryptorClient(f"unix:{config.parent}/run/encryptor.sock") as client:
        yield client
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert process.stderr is not None
    process.stderr.close()


def items_for(client: EncryptorClient, count: int) -> list[pb.SealItem]:
    """Items for."""
    keys = seal_device_keys(client, ((n, n.to_bytes(16, "big")) for n in range(1, count + 1)))
    state = pb.State(
        active=True,
        utc=1_700_000_000,
        entitlements=[pb.Entitlement(product_id=7, epoch=1, key=0)],
    )
    return [
        pb.SealItem(address=key.owner, number=1_700_000_000, device_key=key, state=state)
        for key in keys
    ]


def test_a_batch_of_500_comes_back_in_order_and_every_box_opens_its_own(
    client: EncryptorClient,
) -> None:
    """A batch of 500 comes back in order and every box opens its own."""
    items = items_for(client, 500)
    reply = client.seal(CAS, [client.make_chain(7, 1, 64)], items)
    for item, sealed in zip(items, reply.items, strict=True):
        kek = derive_kek(item.address.to_bytes(16, "big"), CAS, item.address, 0)
        assert State.from_payload(open_set(kek, list(sealed.sections))).active
    info = client.info()
    assert [(one.master_id, one.state) for one in info.masters] == [("m1", pb.Master.CURRENT)]
    assert 0 <= info.clock_us - reply.clock_us < 10_000_000


def test_states_in_columns_come_back_in_order_and_every_box_opens_its_own(
    client: EncryptorClient,
) -> None:
    """Another box's row opens for none."""
    keys = [item.device_key for item in items_for(client, 500)]
    blobs = [key.blob for key in keys]
    blobs[3] = blobs[4]
    request = pb.SealStatesRequest(
        ca_system_id=CAS,
        utc=1_700_000_000,
        labels=[pb.DeviceKeyLabel(last_epoch=65535, master_id="m1")],
        addresses=[key.owner for key in keys],
        epochs=[0] * 500,
        numbers=[1_700_000_000] * 500,
        device_key_labels=[0] * 500,
        device_keys=blobs,
        active=[True] * 500,
        entitlements=[0] * 500,
    )
    reply = client.seal_states(request)
    assert [(one.place, one.code) for one in reply.refusals] == [(3, "not_sealed_here")]
    assert list(reply.parts) == [1] * 3 + [0] + [1] * 496
    for key, section in zip(keys[:3] + keys[4:], reply.sections, strict=True):
        kek = derive_kek(key.owner.to_bytes(16, "big"), CAS, key.owner, 0)
        assert State.from_payload(open_set(kek, [section])).active


def test_keys_are_rewrapped_each_answered_on_its_own(client: EncryptorClient) -> None:
    """Keys are rewrapped each answered on its own."""
    good = client.make_chain(7, 1, 64)
    bad = pb.SealedKey(purpose=pb.SealedKey.PRODUCT, owner=7, master_id="m1", blob=good.blob)
    first, second = client.rewrap([good, bad])
    assert first.key.blob not in (b"", good.blob)
    assert not second.HasField("key")
    assert "does not open" in second.error


def test_a_call_that_is_itself_at_fault_is_refused_for_good(client: EncryptorClient) -> None:
    """A call that is itself at fault is refused for good."""
    with pytest.raises(EncryptorError, match="at most 128") as caught:
        client.make_chain(7, 1, 129)
    assert not isinstance(caught.value, EncryptorUnavailableError)
    with pytest.raises(EncryptorError, match="1001 items"):
        client.seal(CAS, [], [pb.SealItem()] * 1001)
    with pytest.raises(EncryptorError, match="1001 items"):
        client.seal_states(pb.SealStatesRequest(addresses=[1] * 1001))
    with pytest.raises(EncryptorError, match="not of one length"):
        client.seal_states(pb.SealStatesRequest(addresses=[1]))
    with pytest.raises(EncryptorError, match="16 bits"):
        client.seal_states(pb.SealStatesRequest(ca_system_id=0x10000))


def test_an_encryptor_that_does_not_know_a_call_declines_it(tmp_path: Path) -> None:
    """One of the release before: it is not away over a device."""
    server = grpc.server(ThreadPoolExecutor(1))
    address = f"unix:{tmp_path}/before.sock"
    server.add_insecure_port(address)
    server.start()
    with EncryptorClient(address) as client, pytest.raises(EncryptorDeclinesError):
        client.seal_states(pb.SealStatesRequest())
    server.stop(0)


def test_a_request_that_cannot_be_read_is_the_callers_fault(client: EncryptorClient) -> None:
    """INVALID_ARGUMENT, not an error of the server with a stack in its log."""
    with grpc.insecure_channel(client.address) as channel:
        seal = channel.unary_unary("/portcullis.encryptor.v1.Encryptor/Seal")
        with pytest.raises(grpc.RpcError) as refused:
            seal(b"\xff\xff\xff", timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert client.info().clock_us


def test_the_socket_is_for_this_user_alone(client: EncryptorClient) -> None:
    """The socket is for this user alone."""
    path = client.addresses[0].removeprefix("unix:")
    assert Path(path).stat().st_mode & 0o777 == 0o600


def test_an_encryptor_that_is_away_is_unavailable(tmp_path: Path) -> None:
    """An encryptor that is away is unavailable."""
    with (
        EncryptorClient(f"unix:{tmp_path}/none.sock", deadline_s=2) as client,
        pytest.raises(EncryptorUnavailableError),
    ):
        client.info()


def test_a_killed_encryptor_is_replaced_and_its_client_goes_on(config: Path) -> None:
    """The stale socket file does not stop the next one, nor the channel made before."""
    process = start(config)
    with EncryptorClient(f"unix:{config.parent}/run/encryptor.sock", deadline_s=5) as client:
        chain = client.make_chain(7, 1, 64)
        process.kill()
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()
        assert Path(client.addresses[0].removeprefix("unix:")).is_socket()
        again = start(config)
        with EncryptorClient(client.addresses) as fresh:
            assert fresh.rewrap([chain])[0].key.owner == 7
        os.kill(again.pid, signal.SIGTERM)
        assert again.wait(10) == 0
        assert again.stderr is not None
        again.stderr.close()


def end(process: "subprocess.Popen[str]") -> None:
    """Kill a process and close its pipe."""
    process.kill()
    process.wait(10)
    assert process.stderr is not None
    process.stderr.close()


def test_the_next_encryptor_is_used_when_one_is_away_or_hangs(config: Path) -> None:
    """Killed: the call goes on to the next. Held: it does so long before the call's deadline."""
    second = config.with_name("second.toml")
    text = config.read_text().replace("encryptor.sock", "second.sock")
    second.write_text(re.sub(r'(monitor = "127.0.0.1):\d+', rf"\1:{free_port()}", text))
    one, two = start(config), start(second)
    sockets = tuple(f"unix:{config.parent}/run/{name}.sock" for name in ("encryptor", "second"))
    try:
        with EncryptorClient(sockets, deadline_s=60) as client:
            chain = client.make_chain(7, 1, 64)
            assert (client.check(), client.notice()) == (None, None)
            end(one)
            assert client.rewrap([chain])[0].key.owner == 7
            assert client.check() is None
            assert client.notice() == f"away: {sockets[0]}"
            one = start(config)
            two.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            assert client.rewrap([chain])[0].key.owner == 7
            assert time.monotonic() - begun < 30  # five seconds on an idle machine
            end(one)
            assert client.check() == f"away: {', '.join(sockets)}"
    finally:
        end(one)
        end(two)
