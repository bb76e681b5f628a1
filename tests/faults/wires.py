"""Every connection of the head-end through a fault proxy of its own."""

from collections.abc import Sequence

from tests.cluster import HOST, Cluster
from tests.faults.proxy import FaultProxy, Proxies

DATABASE = "database"
"""The database as a part: whichever of the servers is the primary."""


class Wires:
    """Proxies by (who calls, whom), made when they are first asked for."""

    def __init__(self, proxies: Proxies, cluster: Cluster) -> None:
        self._proxies = proxies
        self._cluster = cluster
        self._wires: dict[tuple[str, str], FaultProxy] = {}

    def __getitem__(self, ends: tuple[str, str]) -> FaultProxy:
        caller, part = ends
        return self._wires[caller, self._cluster.primary if part == DATABASE else part]

    def to(self, part: str) -> list[FaultProxy]:
        """Every wire that leads to a part; to the database: to any of its servers."""
        parts = self._cluster.nodes if part == DATABASE else [part]
        return [wire for (_, whom), wire in self._wires.items() if whom in parts]

    def reach(self, caller: str, part: str, port: int) -> int:
        """The port by which `caller` reaches a part that listens on `port`."""
        if (caller, part) not in self._wires:
            self._wires[caller, part] = self._proxies.before(HOST, port)
        return self._wires[caller, part].port

    def database(self, room: str) -> Sequence[str]:
        """The addresses by which a room reaches each database server."""
        return [
            f"{HOST}:{self.reach(room, name, node.port)}"
            for name, node in self._cluster.nodes.items()
        ]
