"""`[auditor]`."""

from typing import Annotated, Self

import msgspec

from portcullis.auditor.anchors import Anchor, parse_anchor
from portcullis.runtime.config import ConfigError, ConfigSource, Duration, Section

_LONGEST_SPAN_S = 600


class AuditorConfig(Section, frozen=True):
    """Where the evidence is kept and anchored.

    monitor: "host:port" of /metrics, /livez and /readyz.
    dir: the chains and the signed heads.
    key_file: Ed25519 key that signs the heads, PEM, mode 0600; made where there is none.
    sign_every: how often the heads of chains that have grown are signed.
    anchors: where signed heads are laid down: "dir:PATH" (a file for each), "syslog:PATH" (a Unix
        socket) or "syslog:host:port" (UDP).
    anchor_every: how often the newest one is.
    file_bytes: size from which a file is closed and compressed.
    keep: how long closed files are kept.
    """

    monitor: str = "127.0.0.1:9108"
    dir: str = "var/audit"
    key_file: str = "var/keys/audit-signing-key.pem"
    sign_every: Duration = Duration(5)
    anchors: tuple[str, ...] = ()
    anchor_every: Duration = Duration(60)
    file_bytes: Annotated[int, msgspec.Meta(ge=10_000)] = 64_000_000
    keep: Duration = Duration(1100 * 86_400)

    @classmethod
    def of(cls, source: ConfigSource) -> Self:
        """Read and check the section; raises ConfigError."""
        config = source.section("auditor", cls)
        config.parsed_anchors()
        if config.sign_every > _LONGEST_SPAN_S:
            raise ConfigError("auditor.sign_every: expected 10min or less")
        return config

    def parsed_anchors(self) -> list[Anchor]:
        """The anchors; raises ConfigError."""
        return [parse_anchor(anchor) for anchor in self.anchors]
