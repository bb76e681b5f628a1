"""`[gateway]`: where the SMS is heard, and whose tokens are believed."""

import socket
from typing import Annotated, Self

import msgspec

from portcullis.gateway.permits import ClientConfig, Permits
from portcullis.runtime.config import ConfigError, ConfigSource, Duration, Section
from portcullis.runtime.jwks import is_private_enough


class GatewayConfig(Section, frozen=True):
    """`[gateway]`.

    Attributes:
        listen: "host:port" of the API. TLS is the reverse proxy's.
        monitor: "host:port" of metrics and health.
        request_log: file of the request log; it is rotated at `request_log_bytes` and
            `request_log_files` old ones are kept.
        issuer: `iss` of the tokens believed; by default the built-in token endpoint.
        audience: `aud` of the tokens believed.
        jwks: keys of the authorization server: a URL of its metadata or JWKS, or a file. None:
            the built-in token endpoint, which is served only then.
        jwks_refresh: age from which those keys are fetched anew; a key that the server has
            withdrawn is believed for twice as long at most.
        jwks_keep: how long keys are believed while the server does not answer.
        oauth_dir: files of the built-in token endpoint: signing key, clients.
        token_lifetime: of the tokens that the built-in endpoint issues.
        max_body_bytes: largest single order.
        max_batch_bytes: largest batch.
        rate_per_client_s: requests a second that one client may make; twice as many in a burst.
            Each line of a batch counts.
        client: rates, products and devices of single clients.
        max_waiting: orders that may wait for the database before 503 is answered.
    """

    listen: str = "127.0.0.1:8080"
    monitor: str = "127.0.0.1:9101"
    request_log: str = "var/log/requests.jsonl"
    request_log_bytes: Annotated[int, msgspec.Meta(ge=10_000)] = 100_000_000
    request_log_files: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    issuer: str | None = None
    audience: str = "portcullis"
    jwks: str | None = None
    jwks_refresh: Duration = Duration(300)
    jwks_keep: Duration = Duration(3600)
    oauth_dir: str = "var/oauth"
    token_lifetime: Duration = Duration(3600)
    max_body_bytes: Annotated[int, msgspec.Meta(ge=16_384)] = 65_536
    max_batch_bytes: Annotated[int, msgspec.Meta(ge=65_536)] = 16_777_216
    rate_per_client_s: Annotated[float, msgspec.Meta(gt=0)] = 5000.0
    client: tuple[ClientConfig, ...] = ()
    max_waiting: Annotated[int, msgspec.Meta(ge=10_000)] = 50_000

    @classmethod
    def of(cls, source: ConfigSource) -> Self:
        """Read the section; raises ConfigError, also for keys that contradict each other."""
        config = source.section("gateway", cls)
        if config.jwks is not None and config.issuer is None:
            raise ConfigError("gateway.issuer: expected the `iss` of the server that jwks is of")
        if config.jwks is not None and not is_private_enough(config.jwks):
            raise ConfigError("gateway.jwks: expected https: over http, keys can be swapped")
        if config.jwks_keep < 2 * config.jwks_refresh:
            raise ConfigError("gateway.jwks_keep: expected twice jwks_refresh or more")
        Permits(config.client)
        return config

    @property
    def permits(self) -> Permits:
        """What each client may touch, and how often it may ask."""
        return Permits(self.client)

    @property
    def writer(self) -> str:
        """Whose chain of evidence this gateway's requests are: one at a time has this address."""
        return f"gateway@{socket.gethostname()}:{self.listen.rpartition(':')[2]}"

    @property
    def token_issuer(self) -> str:
        """`iss` of the tokens believed."""
        return self.issuer or f"http://{self.listen}"
