"""`[keys]`: how the commands about keys reach the encryptors."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from portcullis.cli.context import Context
from portcullis.runtime.config import ConfigSource, Section
from portcullis.runtime.rpc.client import (
    Addresses,
    EncryptorClient,
    check_addresses,
    each_address,
)
from portcullis.runtime.tls import TlsConfig, TlsFiles
from portcullis.scheduler.config import SchedulerConfig


class KeysConfig(Section, frozen=True):
    """The commands `portcullis keys …`. Without `encryptor`, as the scheduler's section says.

    encryptor: where encryptors listen.
    tls: the operator's certificate, for TCP.
    """

    encryptor: Addresses | None = None
    tls: TlsConfig | None = None

    @classmethod
    def of(cls, source: ConfigSource) -> "KeysConfig":
        """Read the section, or the scheduler's in its place; raises ConfigError."""
        config = source.section("keys", cls)
        if config.encryptor is None:
            scheduler = SchedulerConfig.of(source)
            return cls(encryptor=scheduler.encryptor, tls=config.tls or scheduler.tls)
        check_addresses(config.encryptor, config.tls, "keys")
        return config


@contextmanager
def encryptor(context: Context) -> Iterator[EncryptorClient]:
    """A client that asks whichever encryptor answers."""
    config = KeysConfig.of(context.source())
    assert config.encryptor is not None  # noqa: S101 (`of` has filled it in)
    with EncryptorClient(config.encryptor, TlsFiles.of(config.tls, "keys.tls")) as client:
        yield client


@contextmanager
def each_encryptor(context: Context) -> Iterator[list[EncryptorClient]]:
    """A client for each encryptor."""
    config = KeysConfig.of(context.source())
    assert config.encryptor is not None  # noqa: S101 (`of` has filled it in)
    with ExitStack() as stack:
        yield [
            stack.enter_context(EncryptorClient(address, TlsFiles.of(config.tls, "keys.tls")))
            for address in each_address(config.encryptor)
        ]
