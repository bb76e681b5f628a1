"""Whether a stream's classes fit its bandwidth, for so many boxes and orders. Pure."""

from dataclasses import dataclass

from dvbwire.ts import PACKET_SIZE
from portcullis.cycler.config import StreamConfig
from portcullis.runtime.config import ConfigError


@dataclass(frozen=True)
class Capacity:
    """Packets per second wanted and there are, if an EMM is one packet.

    Attributes:
        demand: by class name.
        supply: of the bandwidth asked for.
    """

    demand: dict[str, float]
    supply: float

    @property
    def load(self) -> float:
        """Demand over supply; above 1 the classes stretch."""
        return sum(self.demand.values()) / self.supply


def capacity_of(stream: StreamConfig, population: int, orders_per_s: float) -> Capacity:
    """What the classes want of the stream: every box in the last, every order in the others."""
    *walked, last = stream.classes
    demand = {one.name: orders_per_s * (one.airings or 0) for one in walked}
    demand[last.name] = population / last.every
    return Capacity(demand, stream.bandwidth_kbit_s * 1000 / 8 / PACKET_SIZE)


def check_fits(stream: StreamConfig, population: int, orders_per_s: float) -> None:
    """Raise ConfigError, which says by how much, unless the classes fit the bandwidth."""
    capacity = capacity_of(stream, population, orders_per_s)
    if capacity.load > 1:
        parts = ", ".join(f"{name} {value:.0f}" for name, value in capacity.demand.items())
        needed = stream.bandwidth_kbit_s * capacity.load
        raise ConfigError(
            f"cycler.stream {stream.name}: {population} boxes and {orders_per_s:g} orders/s want "
            f"{sum(capacity.demand.values()):.0f} packets/s ({parts}), bandwidth_kbit_s carries "
            f"{capacity.supply:.0f}: give {needed:.0f} kbit/s or longer periods"
        )


def full_cycle_s(stream: StreamConfig, population: int, orders_per_s: float) -> float:
    """How long it takes until every EMM has been aired once: the last class's real period.

    It has what the other classes leave, and its `min_share` at least.
    """
    capacity = capacity_of(stream, population, orders_per_s)
    *walked, last = stream.classes
    others = sum(capacity.demand[one.name] for one in walked)
    left = max(capacity.supply - others, last.min_share * capacity.supply)
    if left <= 0:
        return float("inf")
    return max(float(last.every), population / left)
