"""What a client may touch, and how often it may ask."""

from pathlib import Path

import pytest

from portcullis.gateway.config import GatewayConfig
from portcullis.gateway.orders import read_batch_line, read_product
from portcullis.gateway.permits import Caller, ClientConfig, Permits
from portcullis.gateway.problems import ProblemError
from portcullis.gateway.throttle import Throttle
from portcullis.runtime.config import ConfigError, ConfigSource
from portcullis.runtime.oauth import SCOPES

NORTH = ClientConfig(client_id="north", products=(5, "100-199"), devices=("1-999", 2000))
REST = ClientConfig(client_id="*", devices=(), rate_s=1)


def refusal(caller: Caller, **order: object) -> str | None:
    """Why a line of a batch is refused."""
    said = ", ".join(
        f'"{name}": {value}' if isinstance(value, int) else f'"{name}": "{value}"'
        for name, value in order.items()
    )
    request = read_batch_line(caller, f'{{"transaction_id": "t", {said}}}'.encode())
    return request.refusal and request.refusal.code


def caller(name: str, *clients: ClientConfig) -> Caller:
    """A client with every scope."""
    return Caller(name, frozenset(SCOPES), Permits(clients).of(name))


@pytest.mark.parametrize(
    ("device_id", "product_id", "expected"),
    [
        ("1", 5, None),
        ("999", 100, None),
        ("2000", 199, None),
        ("1000", 5, "not_permitted"),
        ("1", 4, "not_permitted"),
        ("1", 99, "not_permitted"),
        ("1", 200, "not_permitted"),
    ],
)
def test_an_order_needs_its_device_and_its_product_on_the_list(
    device_id: str, product_id: int, expected: str | None
) -> None:
    """Ranges have both ends."""
    grant = {"op": "addentitlement", "device_id": device_id, "product_id": product_id}
    assert refusal(caller("north", NORTH, REST), **grant) == expected


def test_a_client_without_an_entry_gets_that_of_everybody_else_or_all() -> None:
    """An entry of its own replaces "*" altogether; without either nothing is forbidden."""
    add = {"op": "adddevice", "device_id": "7"}
    assert refusal(caller("south", NORTH, REST), **add) == "not_permitted"
    assert refusal(caller("south", NORTH), **add) is None
    assert refusal(caller("own", REST, ClientConfig(client_id="own")), **add) is None


def test_a_product_is_named_by_those_who_may_touch_it() -> None:
    """PUT /products/{product_id}."""
    north = caller("north", NORTH)
    assert read_product(north, "100", b'{"name": "x"}').refusal is None
    refused = read_product(north, "200", b'{"name": "x"}').refusal
    assert refused is not None
    assert refused.code == "not_permitted"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('client_id = "a"\nproducts = [0]', "client a: expected 1 to 65535"),
        ('client_id = "a"\nproducts = ["9-5"]', "the lower end first"),
        ('client_id = "a"\ndevices = ["1099511627776"]', "expected 1 to 1099511627775"),
        ('client_id = "a"\ndevices = ["all"]', "such as"),
        ('client_id = "a"\ndevices = ["-5"]', "such as"),
        ('client_id = "a"\nrate_s = -1', "rate_s"),
        ('client_id = "a"\n[[gateway.client]]\nclient_id = "a"', "twice"),
        ("products = [1]", "client_id"),
        ('client_id = "a"\nproduct = [1]', "product"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused(
    lines: str, expected: str, tmp_path: Path
) -> None:
    """At the start, with the client's name."""
    file = tmp_path / "p.toml"
    file.write_text(f"[gateway]\n[[gateway.client]]\n{lines}\n")
    with pytest.raises(ConfigError, match=expected):
        GatewayConfig.of(ConfigSource.load(file, {}))


def wait_s(throttle: Throttle, client: str, now: float, cost: int = 1) -> int:
    """How long a client is told to wait; 0: it passes."""
    try:
        throttle.check(client, now, cost)
    except ProblemError as error:
        assert error.status == 429
        return int(error.headers["Retry-After"])
    return 0


def test_a_client_may_burst_then_keeps_its_rate_and_disturbs_nobody() -> None:
    """Two a second: four at once, then one each half second; others have their own bucket."""
    throttle = Throttle(2.0)
    assert [wait_s(throttle, "a", 100.0) for _ in range(6)] == [0, 0, 0, 0, 1, 1]
    assert wait_s(throttle, "b", 100.0) == 0
    assert [wait_s(throttle, "a", 100.5) for _ in range(2)] == [0, 1]
    assert wait_s(throttle, "a", 1000.0) == 0


def test_a_batch_passes_whole_and_is_waited_out() -> None:
    """A line is a request: what exceeds the burst is a debt, also over a tidying."""
    throttle = Throttle(10.0)
    assert wait_s(throttle, "a", 100.0, cost=1020) == 0
    assert wait_s(throttle, "a", 100.0) == 101
    assert wait_s(throttle, "a", 150.0, cost=2) == 51
    assert wait_s(throttle, "a", 150.0, cost=0) == 0
    assert wait_s(throttle, "a", 201.0) == 0


def test_a_client_may_have_a_rate_of_its_own_and_0_shuts_it_out() -> None:
    """Others keep the default, or that of "*"."""
    throttle = Throttle(1.0, {"fast": 100.0, "gone": 0.0})
    assert sum(wait_s(throttle, "fast", 5.0) == 0 for _ in range(300)) == 200
    assert sum(wait_s(throttle, "slow", 5.0) == 0 for _ in range(300)) == 2
    assert wait_s(throttle, "gone", 5.0) == wait_s(throttle, "gone", 1e6) == 3600
    default = Throttle(100.0, {"*": 1.0, "fast": 50.0})
    assert sum(wait_s(default, "any", 5.0) == 0 for _ in range(300)) == 2
    assert sum(wait_s(default, "fast", 5.0) == 0 for _ in range(300)) == 100
