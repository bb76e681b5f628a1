"""Mutual TLS to a real encryptor: who is let in to what, with certificates made by commands."""

import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc

from portcullis.cli.commands import SECTIONS
from portcullis.cli.main import cli
from portcullis.encryptor.permits import CALLS
from portcullis.runtime.config import ConfigError, ConfigSource
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import (
    EncryptorClient,
    EncryptorUnavailableError,
)
from portcullis.runtime.tls import TlsConfig, TlsFiles
from tests.conftest import free_port
from tests.integration.encryptor_process import EncryptorProcess, running, seal_device_keys

ALLOW = """
[encryptor.allow]
seal = ["emmg-1", "emmg-2"]
make_chains = ["scheduler"]
import_keys = ["operator"]
change_masters = ["operator"]
"""
KEY = pb.SealedKey(purpose=pb.SealedKey.DEVICE, owner=1)
MAKE = pb.ChangeMasterRequest.MAKE
REQUESTS: dict[str, Callable[[EncryptorClient], object]] = {
    "Seal": lambda client: client.seal(1, [], []),
    "SealStates": lambda client: client.seal_states(pb.SealStatesRequest()),
    "MakeChain": lambda client: client.make_chain(7, 1, 64),
    "ImportDeviceKeys": lambda client: seal_device_keys(client, [(1, bytes(16))]),
    "SameKeys": lambda client: client.same_keys([(KEY, KEY)]),
    "Rewrap": lambda client: client.rewrap([KEY]),
    "Verify": lambda client: client.verify([KEY]),
    "ChangeMaster": lambda client: client.change_master(MAKE, "m2"),
    "Info": lambda client: client.info(),
}
MAY = {
    "emmg-1": {"Seal", "SealStates", "Info"},
    "emmg-2": {"Seal", "SealStates", "Info"},
    "scheduler": {"MakeChain", "Info"},
    "operator": {"ImportDeviceKeys", "SameKeys", "Rewrap", "Verify", "ChangeMaster", "Info"},
    "stranger": set(),
}


def issue(home: Path, name: str, *words: str) -> None:
    """`portcullis ca issue`."""
    command = ["ca", "issue", name, *words, "--dir", str(home / "tls")]
    assert CliRunner().invoke(cli, command).exit_code == 0


def tls(home: Path, name: str) -> TlsFiles:
    """A peer's certificate."""
    files = home / "tls"
    config = TlsConfig(
        ca_file=f"{files}/ca.pem", cert_file=f"{files}/{name}.pem", key_file=f"{files}/{name}.key"
    )
    return TlsFiles(config, f"{name}.tls")


@dataclass
class House:
    """An encryptor on TCP and on its socket, and the certificates of its peers."""

    home: Path
    address: str
    process: EncryptorProcess

    def client(self, name: str) -> EncryptorClient:
        """A client with a peer's certificate."""
        return EncryptorClient(self.address, tls(self.home, name), deadline_s=20)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A CA, certificates, a running encryptor."""
    ca = ["ca", "init", "--dir", str(tmp_path / "tls")]
    assert CliRunner().invoke(cli, ca).exit_code == 0
    issue(tmp_path, "encryptor", "--host", "127.0.0.1")
    for name in MAY:
        issue(tmp_path, name)
    address = f"127.0.0.1:{free_port()}"
    files = tmp_path / "tls"
    table = (
        f'[encryptor.tls]\nca_file = "{files}/ca.pem"\n'
        f'cert_file = "{files}/encryptor.pem"\nkey_file = "{files}/encryptor.key"\n'
    )
    process = EncryptorProcess(tmp_path, table + ALLOW, also=address)
    process.init()
    with running(process):
        yield House(tmp_path, address, process)


def test_every_call_has_its_permit() -> None:
    """A call that is added later is in the list, and in this file."""
    calls = {method.name for method in pb.DESCRIPTOR.services_by_name["Encryptor"].methods}
    assert set(CALLS) | {"Info"} == calls == set(REQUESTS)


def test_each_peer_makes_its_own_calls_and_no_other(house: House) -> None:
    """By the name in its certificate; each refusal is counted."""
    refused = 0
    for peer, allowed in MAY.items():
        with house.client(peer) as client:
            for call, request in REQUESTS.items():
                if call in allowed:
                    request(client)
                    continue
                # No fault of what was to be sealed: no device is given up for it.
                with pytest.raises(EncryptorUnavailableError, match=f"{peer} may not call {call}"):
                    request(client)
                refused += 1
    name = 'portcullis_encryptor_rejected_calls_total{reason="permission_denied"}'
    assert house.process.metric(name) == refused
    with EncryptorClient(house.process.address) as client:  # the socket is this user's: all calls
        for request in REQUESTS.values():
            request(client)


def test_without_a_certificate_of_the_ca_nobody_is_let_in(house: House, tmp_path: Path) -> None:
    """Neither in clear, nor with one of another CA that has the right name."""
    other = tmp_path / "other"
    other.mkdir()
    CliRunner().invoke(cli, ["ca", "init", "--dir", str(other / "tls")])
    issue(other, "emmg-1", "--host", "127.0.0.1")
    forged = tls(other, "emmg-1")
    ours = tls(house.home, "emmg-1")
    forged.pem = type(ours.pem)(ours.pem.ca, forged.pem.certificate, forged.pem.key)
    with (
        EncryptorClient(house.address, forged, deadline_s=3) as client,
        pytest.raises(EncryptorUnavailableError),
    ):
        client.info()
    with grpc.insecure_channel(house.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError):
            health.Check(health_pb2.HealthCheckRequest(), timeout=3)


def test_an_encryptor_that_is_not_the_one_meant_is_not_talked_to(tmp_path: Path) -> None:
    """Its certificate is of the right CA, but for another host."""
    CliRunner().invoke(cli, ["ca", "init", "--dir", str(tmp_path / "tls")])
    issue(tmp_path, "encryptor", "--host", "10.1.2.3")
    issue(tmp_path, "emmg-1")
    address = f"127.0.0.1:{free_port()}"
    files = tmp_path / "tls"
    table = (
        f'[encryptor.tls]\nca_file = "{files}/ca.pem"\n'
        f'cert_file = "{files}/encryptor.pem"\nkey_file = "{files}/encryptor.key"\n'
    )
    process = EncryptorProcess(tmp_path, table + ALLOW, also=address)
    process.init()
    with (
        running(process),
        EncryptorClient(address, tls(tmp_path, "emmg-1"), deadline_s=3) as client,
        pytest.raises(EncryptorUnavailableError),
    ):
        client.info()


def served(address: str, home: Path) -> bytes:
    """The certificate that the encryptor shows."""
    host, port = address.split(":")
    context = tls(home, "emmg-1").client_context()
    with (
        socket.create_connection((host, int(port))) as plain,
        context.wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        found = wrapped.getpeercert(binary_form=True)
    assert found is not None
    return found


def test_certificates_are_replaced_while_everything_runs(house: House) -> None:
    """New ones are shown and believed at once, by both ends; calls go on without an error."""
    with house.client("emmg-1") as client:
        client.info()
        before = served(house.address, house.home)
        issue(house.home, "encryptor", "--host", "127.0.0.1")
        assert served(house.address, house.home) != before
        client.info()
        channel = client._channels[0]
        issue(house.home, "emmg-1")
        client.info()
        assert client._channels[0] is not channel
        client.info()


def test_a_pair_that_does_not_fit_is_not_taken(house: House) -> None:
    """The old one is used until the new pair is whole."""
    before = served(house.address, house.home)
    pem = house.home / "tls" / "encryptor.pem"
    whole = pem.read_bytes()
    pem.write_bytes((house.home / "tls" / "emmg-1.pem").read_bytes())
    assert served(house.address, house.home) == before
    pem.write_text("nonsense")
    assert served(house.address, house.home) == before
    assert "certificates not taken" in house.process.log.read_text()
    pem.write_bytes(whole)
    assert served(house.address, house.home) == before


def test_an_expired_certificate_is_not_let_in(house: House) -> None:
    """`ca issue --days 0` makes one."""
    issue(house.home, "emmg-1", "--days", "0")
    with house.client("emmg-1") as client, pytest.raises(EncryptorUnavailableError):
        client.seal(1, [], [])


def test_health_is_told_over_grpc(house: House) -> None:
    """As a load balancer asks it (grpc.health.v1); a key file gone bad is not serving."""
    pem = tls(house.home, "stranger").pem
    credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)
    with grpc.secure_channel(house.address, credentials) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        ask = health_pb2.HealthCheckRequest(service="portcullis.encryptor.v1.Encryptor")
        watched = stub.Watch(ask, timeout=60)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        (house.home / "master.json").chmod(0o644)
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        (house.home / "master.json").chmod(0o600)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("encryptor", {"listen": "127.0.0.1:7070"}),
        ("emmg", {"encryptor": "127.0.0.1:7070"}),
        ("scheduler", {"encryptor": ["unix:a", "127.0.0.1:7070"]}),
        ("keys", {"encryptor": "127.0.0.1:7070"}),
    ],
)
def test_tcp_without_tls_is_refused_by_the_configuration(
    section: str, values: dict[str, object]
) -> None:
    """Everywhere an encryptor is named."""
    with pytest.raises(ConfigError, match=rf"TCP needs \[{section}\.tls\]"):
        SECTIONS[section](ConfigSource(None, "", {section: values}))


def test_what_is_wrong_with_a_certificate_file_is_named(tmp_path: Path) -> None:
    """By the key of the configuration; nothing of a private key is shown."""
    CliRunner().invoke(cli, ["ca", "init", "--dir", str(tmp_path / "tls")])
    issue(tmp_path, "one")
    issue(tmp_path, "two")
    files = tmp_path / "tls"

    def read(ca: str, cert: str, key: str) -> None:
        config = TlsConfig(
            ca_file=str(files / ca), cert_file=str(files / cert), key_file=str(files / key)
        )
        TlsFiles(config, "emmg.tls")

    read("ca.pem", "one.pem", "one.key")
    with pytest.raises(ConfigError, match=r"emmg\.tls: key_file is not the key"):
        read("ca.pem", "one.pem", "two.key")
    with pytest.raises(ConfigError, match=r"emmg\.tls\.cert_file: .*none\.pem cannot be read"):
        read("ca.pem", "none.pem", "one.key")
    with pytest.raises(ConfigError, match=r"emmg\.tls\.cert_file: holds no certificate"):
        read("ca.pem", "one.key", "one.key")
    with pytest.raises(ConfigError, match=r"emmg\.tls\.ca_file: holds no certificate"):
        read("one.key", "one.pem", "one.key")
    with pytest.raises(ConfigError, match=r"emmg\.tls\.key_file: holds no plain private key"):
        read("ca.pem", "one.pem", "one.pem")


def test_the_private_keys_of_the_ca_are_for_this_user_alone(tmp_path: Path) -> None:
    """And a CA is not made twice."""
    command = ["ca", "init", "--dir", str(tmp_path / "tls")]
    assert CliRunner().invoke(cli, command).exit_code == 0
    issue(tmp_path, "one")
    for name in ("ca.key", "one.key"):
        assert (tmp_path / "tls" / name).stat().st_mode & 0o777 == 0o600
    again = CliRunner().invoke(cli, command)
    assert "there is a CA already" in str(again.exception)
    missing = CliRunner().invoke(cli, ["ca", "issue", "x", "--dir", str(tmp_path / "none")])
    assert "ca init" in str(missing.exception)
    assert ssl.create_default_context(cafile=str(tmp_path / "tls" / "ca.pem")).get_ca_certs()
