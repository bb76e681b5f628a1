"""What every service says on /metrics, judged by promtool and by the page that describes it."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from demo.headend import HeadEnd, make_boxes
from demo.sms import SmsClient
from portcullis.cli.health import UnhealthyError
from portcullis.cli.main import cli
from portcullis.cli.up import MONITORS
from tests.ports import free_ports

ROOMS = ["gateway", "emmg", "encryptor", "cycler", "scheduler", "mux", "auditor"]
PAGE = Path("docs/metrics.md")
_OF_ALL = (
    "portcullis_build_",
    "portcullis_check_",
    "portcullis_clock_",
    "portcullis_log_",
    "portcullis_tls_",
)
_OWN_LABELS = {"le"}
_AT_REST = (
    'key_live_epoch{product_id="101"}',
    'portcullis_scheduler_waiting_devices{cause="order"} 0.0',
)
"""What the leader says once it has read the tables after the orders."""


async def _orders(client_file: Path) -> str:
    client = SmsClient(client_file)
    await client.sign_in()
    await client.call("PUT", "/products/101", {"name": "Basic"})
    await client.call("POST", "/adddevice", {"transaction_id": "t1", "device_id": "1001"})
    grant = {"transaction_id": "t2", "device_id": "1001", "product_id": 101}
    request_id = (await client.call("POST", "/addentitlement", grant)).json()["request_id"]
    await client.call("POST", "/adddevice", {"transaction_id": "t3", "device_id": "1001"})
    status = "accepted"
    async with asyncio.timeout(30):
        while status != "on_air":
            status = (await client.call("GET", f"/requests/{request_id}")).json()["status"]
    await client.close()
    return status


def _fetch(port: int) -> str:
    return httpx.get(f"http://127.0.0.1:{port}/metrics").text


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Each service's /metrics, after orders have gone on air."""
    home = tmp_path_factory.mktemp("head-end")
    (home / "state").mkdir()
    make_boxes(home, ["1001"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PORTCULLIS_MUX__INPUT", "filler")
        patch.setenv("PORTCULLIS_MUX__OUTPUTS", "[]")
        head_end = HeadEnd(home, Path("unused"))
        with head_end.running():
            vendor_file = str(home / "state" / "devices.csv")
            config = ["--config", str(head_end.config)]
            subprocess.run(
                head_end.command("keys", "import-devices", vendor_file, *config), check=True
            )
            assert asyncio.run(_orders(home / "state" / "client.json")) == "on_air"
            end = time.monotonic() + 30
            while not all(figure in _fetch(head_end.monitors[4]) for figure in _AT_REST):
                assert time.monotonic() < end, "the leader has not read the tables"
                time.sleep(0.2)  # it does so every few seconds and tells nobody
            yield {"config": str(head_end.config)} | {
                room: _fetch(port) for room, port in zip(ROOMS, head_end.monitors, strict=True)
            }


@pytest.mark.xdist_group("metrics")
@pytest.mark.parametrize("room", ROOMS)
def test_promtool_finds_no_fault(exposed: dict[str, str], room: str) -> None:
    """Names, units, types and help are as Prometheus's conventions have them."""
    verdict = subprocess.run(
        ["promtool", "check", "metrics"],
        check=False,
        input=exposed[room],
        capture_output=True,
        text=True,
    )
    assert (verdict.returncode, verdict.stdout + verdict.stderr) == (0, "")


def _documented() -> dict[str, tuple[set[str], str]]:
    """docs/metrics.md: name → (labels, type)."""
    found = {}
    for item in PAGE.read_text().replace("\n  ", " ").splitlines():
        if item.startswith("- `"):
            name, _, rest = item.removeprefix("- `").partition("`")
            name, _, labels = name.rstrip("}").partition("{")
            found[name] = (set(labels.split(", ")) - {""}, rest.split()[0].rstrip(":"))
    return found


def _families(text: str) -> dict[str, Metric]:
    """Our own families: a counter goes by the name of its samples."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(text)
        if family.name.startswith("portcullis_")
    }


@pytest.mark.xdist_group("metrics")
@pytest.mark.parametrize("room", ROOMS)
def test_the_page_lists_what_the_service_exposes(exposed: dict[str, str], room: str) -> None:
    """Each metric is on the page with its type and labels, and each of the page is exposed."""
    documented, families = _documented(), _families(exposed[room])
    for name, family in families.items():
        labels, kind = documented[name]
        assert family.type == kind
        for sample in family.samples:
            assert set(sample.labels) - _OWN_LABELS == labels
    own = (f"portcullis_{room}_", *_OF_ALL)
    assert set(families) == {name for name in documented if name.startswith(own)}


@pytest.mark.xdist_group("metrics")
def test_the_page_is_as_the_code_makes_it() -> None:
    """`make docs` was run after the last change of a metric."""
    page = subprocess.run(
        [sys.executable, "tools/metrics_page.py"], check=True, capture_output=True, text=True
    )
    assert page.stdout == PAGE.read_text()


@pytest.mark.xdist_group("metrics")
def test_health_asks_what_runs_here(exposed: dict[str, str], tmp_path: Path) -> None:
    """Status 0 where each service that answers is ready; 1 where none answers."""
    config = exposed["config"]
    done = CliRunner().invoke(cli, ["health", "--config", config, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert {room: said[room] for room in ROOMS} == dict.fromkeys(ROOMS, "ok")
    nobody = tmp_path / "nobody.toml"
    [port] = free_ports(1)
    nobody.write_text("".join(f'[{room}]\nmonitor = "127.0.0.1:{port}"\n' for room in MONITORS))
    refused = CliRunner().invoke(cli, ["health", "--config", str(nobody)])
    assert isinstance(refused.exception, UnhealthyError)


def _value(text: str, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.mark.xdist_group("metrics")
def test_orders_are_counted_along_their_way(exposed: dict[str, str]) -> None:
    """Three orders came, one was refused; the others were sealed and aired, keys were made."""
    gateway, cycler, scheduler = exposed["gateway"], exposed["cycler"], exposed["scheduler"]
    orders = "portcullis_gateway_orders_total"
    assert _value(gateway, orders, kind="adddevice", outcome="accepted") == 1
    assert _value(gateway, orders, kind="adddevice", outcome="device_exists") == 1
    assert _value(gateway, orders, kind="addentitlement", outcome="accepted") == 1
    assert _value(exposed["emmg"], "portcullis_emmg_sealed_total", cause="order") >= 1
    assert _value(exposed["encryptor"], "portcullis_encryptor_sealed_total") >= 1
    assert _value(cycler, "portcullis_cycler_aired_emms_total") >= 1
    assert _value(cycler, "portcullis_cycler_order_to_air_seconds_count") >= 1
    assert _value(cycler, "portcullis_cycler_link", state="stream_open") == 1
    assert _value(cycler, "portcullis_cycler_bandwidth_asked_bytes_per_second") == 125_000
    assert _value(cycler, "portcullis_cycler_class_cycle_seconds", **{"class": "fresh"}) >= 2
    assert _value(scheduler, "portcullis_scheduler_leading") == 1
    assert _value(scheduler, "portcullis_scheduler_key_live_epoch", product_id="101") == 1
    assert _value(scheduler, "portcullis_scheduler_waiting_devices") == 0
    assert _value(exposed["mux"], "portcullis_mux_stream_open", client_id="0xFFF00001") == 1
    assert _value(gateway, "portcullis_log_messages_total", level="info") >= 1
