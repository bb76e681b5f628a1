"""What each client may touch, and how often it may ask (pure)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from portcullis.runtime.config import ConfigError, Section

MAX_DEVICE_ID = 2**40 - 1
MAX_PRODUCT_ID = 65535
EVERYBODY_ELSE = "*"


class ClientConfig(Section, frozen=True):
    """`[[gateway.client]]`.

    Attributes:
        client_id: as the token says it; "*" stands for every client without an entry of its own.
        rate_s: orders and reads a second, instead of `rate_per_client_s`; 0 shuts the client out.
        products: the products it may touch: numbers and ranges ("100-199"). None: all.
        devices: the device ids it may touch: numbers and ranges. None: all.
    """

    client_id: str
    rate_s: float | None = None
    products: tuple[int | str, ...] | None = None
    devices: tuple[int | str, ...] | None = None


class Ranges:
    """Sorted, disjoint ranges of whole numbers, both ends within."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self._spans = tuple(sorted(spans))

    @classmethod
    def parse(cls, items: Sequence[int | str], highest: int) -> Self:
        """Read numbers and "low-high" within 1 to `highest`; raises ValueError naming the item."""
        spans = []
        for item in items:
            low, _, high = str(item).partition("-")
            span = low.strip(), (high or low).strip()
            if not all(text.isascii() and text.isdecimal() for text in span):
                raise ValueError(f'expected numbers and ranges such as "100-199", got {item!r}')
            if not 1 <= int(span[0]) <= int(span[1]) <= highest:
                raise ValueError(f"expected 1 to {highest}, the lower end first, got {item!r}")
            spans.append((int(span[0]), int(span[1])))
        return cls(spans)

    def __contains__(self, number: int) -> bool:
        return any(low <= number <= high for low, high in self._spans)


class Permit:
    """The devices and products that one client may touch. None: all of them."""

    def __init__(self, devices: Ranges | None = None, products: Ranges | None = None) -> None:
        self._devices = devices
        self._products = products

    def allows_device(self, device_id: int) -> bool:
        """Whether the client may order for, and read, this device."""
        return self._devices is None or device_id in self._devices

    def allows_product(self, product_id: int) -> bool:
        """Whether the client may grant, revoke, name and see this product."""
        return self._products is None or product_id in self._products


@dataclass(frozen=True)
class Caller:
    """Who asks: the client of the token, its scopes, and what it may touch."""

    client_id: str
    scopes: frozenset[str]
    permit: Permit = Permit()  # noqa: RUF009 (never changed)


NOBODY = Caller("", frozenset())


class Permits:
    """The permits and rates of all clients."""

    def __init__(self, clients: Sequence[ClientConfig] = ()) -> None:
        """Raises ConfigError for what cannot be read, or a client that is named twice."""
        self._permits: dict[str, Permit] = {}
        rates: dict[str, float] = {}
        for client in clients:
            name = client.client_id
            if name in self._permits:
                raise ConfigError(f"gateway.client: {name} is there twice")
            try:
                self._permits[name] = Permit(
                    None if client.devices is None else Ranges.parse(client.devices, MAX_DEVICE_ID),
                    None
                    if client.products is None
                    else Ranges.parse(client.products, MAX_PRODUCT_ID),
                )
            except ValueError as error:
                raise ConfigError(f"gateway.client {name}: {error}") from error
            if client.rate_s is not None:
                if client.rate_s < 0:
                    raise ConfigError(f"gateway.client {name}: rate_s: expected 0 or more")
                rates[name] = client.rate_s
        self.rates: Mapping[str, float] = rates

    def of(self, client_id: str) -> Permit:
        """The client's permit; that of "*" where it has no entry; else all."""
        name = client_id if client_id in self._permits else EVERYBODY_ELSE
        return self._permits.get(name, NOBODY.permit)
