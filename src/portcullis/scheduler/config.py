"""`[scheduler]`."""

from typing import Annotated

import msgspec

from portcullis.runtime.config import ConfigError, ConfigSource, Duration, Section
from portcullis.runtime.rpc.client import Addresses, check_addresses
from portcullis.runtime.tls import TlsConfig
from portcullis.scheduler.leadtime import lead_time

MAX_CHAIN_EPOCHS = 128


class SchedulerConfig(Section, frozen=True):
    """When keys change and what is kept how long.

    monitor: "host:port" of /metrics, /livez and /readyz.
    encryptor: where it listens, "unix:PATH" or "host:port"; or several, the next when one is
        away.
    tls: this scheduler's certificate, for an encryptor over TCP.
    purge_every: how often what is over is taken off the air and deleted.
    reseal_every: how old a box's state may grow; bounds how far behind its clock can be.
    product_key_period: how long content is scrambled under one epoch of a product key.
    prepare_ahead: how long before the switch boxes begin to be given the next epoch; earlier
        where the bandwidth needs longer.
    air_cycles: full cycles of the carousel that the next key is on air before the switch.
    chain_epochs: epochs in a new chain, 2 to 128.
    requests_keep: how long requests, their ids and their airings are kept.
    archive_dir: where requests go, month by month, when that is over; None: they stay in the
        database, with an alert.
    tombstones_keep: how long a cycler may be away without a reload.
    """

    monitor: str = "127.0.0.1:9105"
    encryptor: Addresses = "unix:var/run/encryptor.sock"
    tls: TlsConfig | None = None
    purge_every: Duration = Duration(60)
    reseal_every: Duration = Duration(86_400)
    product_key_period: Duration = Duration(30 * 86_400)
    prepare_ahead: Duration = Duration(3 * 86_400)
    air_cycles: Annotated[int, msgspec.Meta(ge=2)] = 3
    chain_epochs: int = 64
    requests_keep: Duration = Duration(731 * 86_400)
    archive_dir: str | None = None
    tombstones_keep: Duration = Duration(3600)

    @classmethod
    def of(cls, source: ConfigSource) -> "SchedulerConfig":
        """Read and check the section; raises ConfigError."""
        config = source.section("scheduler", cls)
        check_addresses(config.encryptor, config.tls, "scheduler")
        if not 2 <= config.chain_epochs <= MAX_CHAIN_EPOCHS:  # noqa: PLR2004 (a chain goes on)
            raise ConfigError("scheduler.chain_epochs: expected 2 to 128")
        if config.prepare_ahead >= config.product_key_period:
            raise ConfigError("scheduler.prepare_ahead: expected less than product_key_period")
        return config

    def check_lead(self, boxes: int, cycle_s: float) -> None:
        """Raise ConfigError unless so many boxes can be told of a new key in `prepare_ahead`."""
        lead = lead_time(boxes, cycle_s, self.air_cycles)
        if lead.delta > self.prepare_ahead.delta:
            raise ConfigError(
                f"scheduler.prepare_ahead: a re-key of {boxes} boxes takes"
                f" {lead.delta.total_seconds():.0f} s ({self.air_cycles} cycles of {cycle_s:.0f} s"
                f" on air, {lead.sealing_s:.0f} s to seal): expected at least that, got"
                f" {float(self.prepare_ahead):.0f} s"
            )
