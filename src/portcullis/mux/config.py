"""`[mux]`: what the multiplexer listens to, reads and sends."""

from typing import Annotated, Self

import msgspec

from portcullis.runtime.config import ConfigError, ConfigSource, Section
from portcullis.runtime.tls import TlsConfig

_KbitPerS = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_LAST_PID = 0x1FFE

FILLER = "filler"
FILLER_KBIT_S = 5000


class MuxConfig(Section, frozen=True):
    """`[mux]`.

    Attributes:
        listen: "host:port" for EMMGs, TCP and UDP alike.
        tls: the multiplexer's certificate: EMMGs must show one of its CA, and UDP is not heard.
        input: "filler" (null packets and a PAT), "file:PATH" (played for ever) or
            "udp://host:port" (passed through as it arrives).
        bitrate_kbit_s: rate of the filler (5000 if not given), or of a file whose PCRs shall not
            tell it. Not for UDP.
        outputs: any number of "udp://host:port" and "file:PATH" (a file that exists is replaced).
        emm_pid: PID of the first EMM stream; further streams take the PIDs that follow.
        max_streams: EMM streams known at a time, so PIDs kept free of the input.
        max_bandwidth_kbit_s: most that one stream is allocated.
        monitor: "host:port" of metrics and health.
    """

    listen: str = "127.0.0.1:32000"
    tls: TlsConfig | None = None
    input: str = FILLER
    bitrate_kbit_s: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] | None = None
    outputs: tuple[str, ...] = ("udp://127.0.0.1:5000",)
    emm_pid: Annotated[int, msgspec.Meta(ge=0x20, le=_LAST_PID)] = 0x1F00
    max_streams: Annotated[int, msgspec.Meta(ge=1, le=64)] = 16
    max_bandwidth_kbit_s: _KbitPerS = 3000
    monitor: str = "127.0.0.1:9106"

    @classmethod
    def of(cls, source: ConfigSource) -> Self:
        """Read the section; raises ConfigError, also for keys that contradict each other."""
        config = source.section("mux", cls)
        if config.emm_pid + config.max_streams - 1 > _LAST_PID:
            raise ConfigError(
                f"mux.emm_pid: {config.max_streams} streams from PID 0x{config.emm_pid:04X} on "
                "do not fit below the null PID"
            )
        if config.bitrate_kbit_s is not None and config.input.startswith("udp:"):
            raise ConfigError("mux.bitrate_kbit_s: UDP input goes out as it comes in")
        return config
