"""Where the encryptor is called: a Unix socket of this user's, or TCP with mutual TLS."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health  # type: ignore[attr-defined]  # no stub

from portcullis.encryptor.config import EncryptorConfig
from portcullis.encryptor.servicer import Servicer
from portcullis.encryptor.unreadable import RefuseUnreadable
from portcullis.runtime.config import ConfigError
from portcullis.runtime.rpc.client import MAX_MESSAGE_BYTES, each_address
from portcullis.runtime.rpc.encryptor_pb2_grpc import add_EncryptorServicer_to_server
from portcullis.runtime.service import split_address
from portcullis.runtime.tls import TlsFiles

UNIX = "unix:"
GRACE_S = 5.0
_MAX_CONNECTION_AGE_MS = 3_600_000
"""A peer shows its certificate again at least this often, so that it must be valid still."""


@asynccontextmanager
async def serving(
    servicer: Servicer, health: grpc_health.HealthServicer, config: EncryptorConfig
) -> AsyncIterator[grpc.aio.Server]:
    """Serve on `config.listen`; on leaving, calls under way have five seconds to end.

    Raises ConfigError.
    """
    server = grpc.aio.server(
        interceptors=[RefuseUnreadable()],
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            # Callers ping a connection that a call waits on, to know whether it is still there.
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.max_connection_age_ms", _MAX_CONNECTION_AGE_MS),
            ("grpc.max_connection_age_grace_ms", _MAX_CONNECTION_AGE_MS),
        ],
    )
    add_EncryptorServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]  # generated
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for listen in each_address(config.listen):
        if listen.startswith(UNIX):
            _bind_unix(server, Path(listen.removeprefix(UNIX)))
        else:
            _bind_tls(server, listen, config)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(GRACE_S)


def _bind_unix(server: grpc.aio.Server, path: Path) -> None:
    """Bind a socket that only this user may connect to, in place of one left by a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise ConfigError(f"encryptor.listen: another process answers on {path}")
        path.unlink()
    mask = os.umask(0o177)
    try:
        server.add_insecure_port(f"{UNIX}{path}")
    except RuntimeError as error:
        raise ConfigError(f"encryptor.listen: cannot listen on {path}") from error
    finally:
        os.umask(mask)


def _bind_tls(server: grpc.aio.Server, listen: str, config: EncryptorConfig) -> None:
    """Bind a port where each peer must show a certificate; ours is read anew when it changes."""
    split_address(listen, "encryptor.listen")
    assert config.tls is not None  # noqa: S101 (`EncryptorConfig.of` has seen to it)
    files = TlsFiles(config.tls, "encryptor.tls")

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        return _certificate(files) if files.changed() else None

    credentials = grpc.dynamic_ssl_server_credentials(
        _certificate(files),
        fetch,  # type: ignore[arg-type]  # None, which the stub does not know, changes nothing
        require_client_authentication=True,
    )
    try:
        server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise ConfigError(f"encryptor.listen: cannot listen on {listen}") from error


def _certificate(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    pem = files.pem
    return grpc.ssl_server_certificate_configuration(
        [(pem.key, pem.certificate)], root_certificates=pem.ca
    )
