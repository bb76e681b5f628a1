"""`[cycler]`: the streams, the classes of each, the as-run log."""

from collections import Counter
from typing import Annotated, Literal, Self

import msgspec

from portcullis.runtime.config import ConfigError, ConfigSource, Duration, Section
from portcullis.runtime.service import split_address
from portcullis.runtime.tls import TlsConfig

_Id16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
_NAME = r"^[a-z][a-z0-9_-]{0,31}$"


class AiringClass(Section, frozen=True):
    """`[[cycler.stream.class]]`: how often an EMM is aired, and how many times before the next.

    Attributes:
        name: label of its metrics.
        every: the period while bandwidth suffices.
        airings: after so many the EMM moves on; omitted, on the last class, for ever.
        min_share: part of the bandwidth this class keeps while it has something due.
    """

    name: Annotated[str, msgspec.Meta(pattern=_NAME)]
    every: Duration
    airings: Annotated[int, msgspec.Meta(ge=1, le=0xFFFF)] | None = None
    min_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


DEFAULT_CLASSES = (
    AiringClass(name="fresh", every=Duration(2), airings=5),
    AiringClass(name="recent", every=Duration(30), airings=20, min_share=0.1),
    AiringClass(name="steady", every=Duration(1800), min_share=0.3),
)


class StreamConfig(Section, frozen=True, rename={"classes": "class"}):
    """`[[cycler.stream]]`: one EMM stream on one multiplexer.

    Attributes:
        client_id: CA_system_id in the upper 16 bits; register your own with DVB.
        data_id: with client_id, names the stream system-wide and its lease.
        mux: "host:port" of the multiplexer's EMMG interface (TCP, and UDP if so provided).
        bandwidth_kbit_s: what to ask for; what is allocated is obeyed.
        format: "packets" or "sections"; the MUX may answer with the other, which is obeyed.
        provision: EMMs over "tcp" or "udp".
        tls: certificates for a multiplexer that speaks SimulCrypt over TLS; not with "udp".
        version: protocol_version to speak.
        data_channel_id: unique per client_id on the MUX: a standby needs another.
        data_stream_id: unique per channel.
        classes: by priority; an EMM walks from the first to the last.
    """

    client_id: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 0xFFF00001
    data_id: _Id16 = 1
    mux: str = "127.0.0.1:32000"
    bandwidth_kbit_s: Annotated[int, msgspec.Meta(ge=1, le=0xFFFF)] = 1000
    format: Literal["packets", "sections"] = "packets"
    provision: Literal["tcp", "udp"] = "tcp"
    tls: TlsConfig | None = None
    version: Literal[2, 3, 5] = 3
    data_channel_id: _Id16 = 1
    data_stream_id: _Id16 = 1
    classes: tuple[AiringClass, ...] = DEFAULT_CLASSES

    @property
    def name(self) -> str:
        """The stream in metrics, logs and directory names."""
        return f"0x{self.client_id:08X}:{self.data_id}"

    @property
    def lease(self) -> str:
        """The lease of who airs it."""
        return f"stream:{self.name}"


class CyclerConfig(Section, frozen=True):
    """`[cycler]`.

    Attributes:
        monitor: "host:port" of metrics and health.
        poll: how often the feed is looked at; after a change three times as soon, ten times.
        asrun_dir: where the as-run log is kept, a directory per stream.
        asrun_keep_days: as-run files older than this are evicted.
        asrun_keep_mb: the oldest are evicted when a stream's files exceed this.
        stream: the streams aired.
    """

    monitor: str = "127.0.0.1:9104"
    poll: Duration = Duration(0.05)
    asrun_dir: str = "var/asrun"
    asrun_keep_days: Annotated[int, msgspec.Meta(ge=1)] = 90
    asrun_keep_mb: Annotated[int, msgspec.Meta(ge=1)] = 2000
    stream: tuple[StreamConfig, ...] = (StreamConfig(),)

    @classmethod
    def of(cls, source: ConfigSource) -> Self:
        """Read the section; raises ConfigError, also for keys that contradict each other."""
        config = source.section("cycler", cls)
        if config.poll <= 0:
            raise ConfigError("cycler.poll: expected more than 0 s")
        if not config.stream:
            raise ConfigError("cycler.stream: expected at least one stream")
        for name, times in Counter(stream.name for stream in config.stream).items():
            if times > 1:
                raise ConfigError(f"cycler.stream: client_id and data_id {name} are there twice")
        for stream in config.stream:
            split_address(stream.mux, "cycler.stream.mux")
            if stream.tls is not None and stream.provision == "udp":
                raise ConfigError(
                    f'cycler.stream {stream.name}: tls: provision = "udp" is in clear'
                )
            _check_classes(stream)
        return config


def _check_classes(stream: StreamConfig) -> None:
    """Raise ConfigError unless the classes make one walk that never ends."""
    where = f"cycler.stream {stream.name}: class"
    if not stream.classes:
        raise ConfigError(f"{where}: expected at least one")
    *walked, last = stream.classes
    if last.airings is not None:
        raise ConfigError(f"{where} {last.name}: the last class airs for ever: omit airings")
    for one in walked:
        if one.airings is None:
            raise ConfigError(f"{where} {one.name}: airings may be omitted on the last class only")
    if any(one.every <= 0 for one in stream.classes):
        raise ConfigError(f"{where}: every: expected more than 0 s")
    if len({one.name for one in stream.classes}) < len(stream.classes):
        raise ConfigError(f"{where}: names must differ")
    if (total := sum(one.min_share for one in stream.classes)) > 1:
        raise ConfigError(f"{where}: min_share adds up to {total:.2f}, more than all there is")
