"""The clients of the built-in token endpoint, as the command line handles them."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from portcullis.gateway.config import GatewayConfig
from portcullis.runtime.oauth import SCOPES, ClientRegister


@dataclass(frozen=True)
class NewClient:
    """A client just registered. The secret is kept nowhere: show it once."""

    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"NewClient({self.client_id!r}, ***)"


def add_client(config: GatewayConfig, name: str, scopes: Collection[str] = SCOPES) -> NewClient:
    """Register a client; raises ValueError for a scope there is none of."""
    return NewClient(*ClientRegister(Path(config.oauth_dir)).add(name, scopes))


def list_clients(config: GatewayConfig) -> list[dict[str, str]]:
    """Every client: client_id, name, scopes."""
    clients = ClientRegister(Path(config.oauth_dir)).all()
    return [
        {"client_id": client_id, "name": client.name, "scopes": " ".join(client.scopes)}
        for client_id, client in sorted(clients.items())
    ]
