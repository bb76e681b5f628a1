"""Wiring of `portcullis encryptor`: masters, socket, server."""

import ipaddress
import os
import socket
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from prometheus_client import REGISTRY

from portcullis.encryptor.config import EncryptorConfig
from portcullis.encryptor.metrics import CacheMetrics
from portcullis.encryptor.sealer import Sealer
from portcullis.encryptor.servicer import Servicer
from portcullis.encryptor.unreadable import RefuseUnreadable
from portcullis.keys import Custody, ImportKey
from portcullis.runtime.config import ConfigError, ConfigSource
from portcullis.runtime.rpc.client import MAX_MESSAGE_BYTES
from portcullis.runtime.rpc.encryptor_pb2_grpc import add_EncryptorServicer_to_server
from portcullis.runtime.service import Service, split_address

_UNIX = "unix:"
_GRACE_S = 5.0


async def main(source: ConfigSource) -> None:
    """Answer calls until told to stop; raises PortcullisError."""
    config = source.section("encryptor", EncryptorConfig)
    masters = config.masters()
    custody = Custody(masters)
    import_key = ImportKey(config.import_key_path, custody)
    sealer = Sealer(custody, time.time)
    # One thread: sealing is bound by the interpreter, and a queue of calls is bounded.
    executor = ThreadPoolExecutor(1, "sealer")
    servicer = Servicer(masters, import_key, sealer, executor, max_batch=config.max_batch)
    async with (
        serving(servicer, config.listen) as server,
        Service("encryptor", config.monitor) as service,
    ):
        service.checks["masters"] = masters.check
        REGISTRY.register(CacheMetrics(sealer.cache_counts))
        await service.stopping.wait()
        await server.stop(_GRACE_S)
    executor.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def serving(servicer: Servicer, listen: str) -> AsyncIterator[grpc.aio.Server]:
    """Serve on `listen`; on leaving, calls under way have five seconds to end."""
    server = grpc.aio.server(
        interceptors=[RefuseUnreadable()],
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            # Callers ping a connection that a call waits on, to know whether it is still there.
            ("grpc.http2.max_ping_strikes", 0),
        ],
    )
    add_EncryptorServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]  # generated
    if listen.startswith(_UNIX):
        _bind_unix(server, Path(listen.removeprefix(_UNIX)))
    else:
        _bind_loopback(server, listen)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(_GRACE_S)


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
        server.add_insecure_port(f"{_UNIX}{path}")
    except RuntimeError as error:
        raise ConfigError(f"encryptor.listen: cannot listen on {path}") from error
    finally:
        os.umask(mask)


def _bind_loopback(server: grpc.aio.Server, listen: str) -> None:
    host, _ = split_address(listen, "encryptor.listen")
    try:
        private = ipaddress.ip_address(host).is_loopback
    except ValueError:
        private = host == "localhost"
    if not private:
        raise ConfigError(
            f"encryptor.listen: {listen}: device keys pass in clear; use unix:PATH or loopback"
        )
    try:
        server.add_insecure_port(listen)
    except RuntimeError as error:
        raise ConfigError(f"encryptor.listen: cannot listen on {listen}") from error
