"""What so many boxes and orders want of a stream's bandwidth, and what they get. Pure.

An EMM counts as one packet, and every order as one of another box (docs/capacity.md).
"""

from dataclasses import dataclass
from math import inf, log1p

from dvbwire.ts import PACKET_SIZE
from portcullis.cycler.config import StreamConfig
from portcullis.runtime.config import ConfigError


@dataclass(frozen=True)
class Capacity:
    """Packets per second wanted and there are.

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


def served(stream: StreamConfig, population: int, orders_per_s: float) -> dict[str, float]:
    """Packets per second that each class gets, as `Shares` deals them out; first airings first.

    A first airing counts as one of its class's airings: the first class's figure includes them.
    """
    capacity = capacity_of(stream, population, orders_per_s)
    first = min(orders_per_s if len(stream.classes) > 1 else 0.0, capacity.supply)
    left = capacity.supply - first
    wanted = dict(capacity.demand)
    begin = stream.classes[0].name
    wanted[begin] = max(wanted[begin] - first, 0.0)
    # What each class has credit for: a share of all packets, those of first airings included.
    kept = {
        one.name: min(wanted[one.name], one.min_share * capacity.supply) for one in stream.classes
    }
    scale = min(1.0, left / total) if (total := sum(kept.values())) else 1.0
    got = {name: value * scale for name, value in kept.items()}
    left -= sum(got.values())
    for name, value in wanted.items():
        more = min(value - got[name], max(left, 0.0))
        got[name] += more
        left -= more
    got[begin] += first
    return got


def stretches(stream: StreamConfig, population: int, orders_per_s: float) -> dict[str, float]:
    """By class: its actual period over the configured one.

    inf: a class that gets less than the orders want of it holds more and more EMMs, and its
    period grows for as long as that lasts.
    """
    wanted = capacity_of(stream, population, orders_per_s).demand
    got = served(stream, population, orders_per_s)
    *walked, last = stream.classes
    found = {
        one.name: 1.0 if got[one.name] >= wanted[one.name] * (1 - 1e-9) else inf for one in walked
    }
    found[last.name] = max(1.0, _ring_s(population, orders_per_s, got[last.name]) / last.every)
    return found


def _ring_s(population: int, orders_per_s: float, packets_per_s: float) -> float:
    """How long the last class takes round if it never rests; inf without bandwidth.

    A box that is ordered for leaves its place, walks and comes in at the end: of who comes in
    (airings and orders) as many as are aired come to the head, the others are ordered for before.
    """
    if not population:
        return 0.0
    if not packets_per_s:
        return inf
    if not orders_per_s:
        return population / packets_per_s
    return population / orders_per_s * log1p(orders_per_s / packets_per_s)


def full_cycle_s(stream: StreamConfig, population: int, orders_per_s: float) -> float:
    """How long it takes until every EMM has been aired once: the last class's real period."""
    last = stream.classes[-1]
    return last.every * stretches(stream, population, orders_per_s)[last.name]
