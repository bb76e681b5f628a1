"""`[emmg]`."""

from portcullis.runtime.config import ConfigSource, Duration, Section
from portcullis.runtime.rpc.client import Addresses, check_addresses
from portcullis.runtime.tls import TlsConfig


class EmmgConfig(Section, frozen=True):
    """The EMM generator. Run as many as are needed: claims keep them apart."""

    monitor: str = "127.0.0.1:9102"
    encryptor: Addresses = "unix:var/run/encryptor.sock"
    tls: TlsConfig | None = None
    """This EMMG's certificate, for an encryptor over TCP."""
    ca_system_id: int = 0xFFF0
    """The upper 16 bits of the streams' client_id; part of every box's key derivation."""
    workers: int = 2
    """Batches in flight at once: crypto and SQL overlap."""
    batch: int = 1000
    """Devices claimed at once, at most."""
    poll: Duration = Duration.parse("30ms")
    """How long a worker waits after a batch that was not full, or none, before it looks again."""
    claim_hold: Duration = Duration.parse("5s")
    """When the claim of an EMMG that died comes due again; one that lives renews its own."""

    @classmethod
    def of(cls, source: ConfigSource) -> "EmmgConfig":
        """Read and check the section; raises ConfigError."""
        config = source.section("emmg", cls)
        check_addresses(config.encryptor, config.tls, "emmg")
        return config
