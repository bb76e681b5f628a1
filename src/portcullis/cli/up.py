"""`portcullis up`: the whole head-end on this machine, from nothing."""

import csv
import json
import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

import click

from portcullis.cli.agreement import check_ca_system_id
from portcullis.cli.clients import register
from portcullis.cli.context import Context, common_options
from portcullis.cli.key_import import import_with_bar
from portcullis.cli.keys import init_keys
from portcullis.cli.supervisor import Child, Supervisor
from portcullis.gateway.config import GatewayConfig
from portcullis.runtime.config import ConfigSource
from portcullis.store.migrate import migrate

ORDER = ("auditor", "encryptor", "mux", "scheduler", "emmg", "cycler", "gateway")
"""Each starts when the one before is ready; the auditor ends last, having seen it all."""

CONFIG = """\
# Made by `portcullis up`; edit it and start again. docs/configuration.md lists every key.
[database]
url = "sqlite:///{state}/portcullis.db"

[gateway]
request_log = "{state}/log/requests.jsonl"
oauth_dir = "{state}/oauth"

[encryptor]
listen = "unix:{state}/encryptor.sock"
master_key_file = "{state}/keys/master.json"

[emmg]
encryptor = "unix:{state}/encryptor.sock"

[scheduler]
encryptor = "unix:{state}/encryptor.sock"
archive_dir = "{state}/archive"

[auditor]
dir = "{state}/audit"
key_file = "{state}/keys/audit-signing-key.pem"
anchors = ["dir:{state}/anchors"]

[mux]
outputs = ["udp://127.0.0.1:5000"]

[cycler]
asrun_dir = "{state}/asrun"

[[cycler.stream]]
client_id = 0xFFF00001
data_id = 1
mux = "127.0.0.1:32000"
bandwidth_kbit_s = 1000
"""

PRETEND_BOXES = range(1001, 1011)
MONITORS = {
    "gateway": 9101,
    "emmg": 9102,
    "encryptor": 9103,
    "cycler": 9104,
    "scheduler": 9105,
    "mux": 9106,
    "auditor": 9108,
}


@click.command()
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var"),
    show_default=True,
    help="Where everything it makes is kept.",
)
@common_options
@click.pass_obj
def up(context: Context, state_dir: Path) -> None:
    """Run everything on this machine: SQLite, own keys, token endpoint, multiplexer.

    On the first start it makes what is missing: configuration, database, master key, an API
    client (client.json) and, without --config, ten pretend boxes (devices.json).
    """
    state = state_dir.resolve()
    (state / "log").mkdir(parents=True, exist_ok=True)
    own_config = context.config is None
    if context.config is None:
        context.config = state / "portcullis.toml"
        if not context.config.exists():
            context.config.write_text(CONFIG.format(state=state), encoding="utf-8")
    os.environ.update(_auditor_defaults(state, context.source()))
    source = context.source()
    check_ca_system_id(source)
    with context.database() as engine:
        migrate(engine)
    init_keys(source)
    _first_client(state, context)
    supervisor = Supervisor([_child(name, state, context.config, source) for name in ORDER])

    def stop(_number: int, _frame: FrameType | None) -> None:
        supervisor.stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        supervisor.start()
        if own_config and not supervisor.stopping.is_set():
            _pretend_boxes(state, context)
        if not supervisor.stopping.is_set():
            client = json.loads((state / "client.json").read_text(encoding="utf-8"))
            sys.stdout.write(
                f"The head-end is up: {client['api_url']} (client in {state}/client.json).\n"
                f"Logs are in {state}/log/. Ctrl-C stops it.\n"
            )
            sys.stdout.flush()
        supervisor.watch()
    finally:
        supervisor.stop()


def _child(name: str, state: Path, config: Path, source: ConfigSource) -> Child:
    monitor = source.data.get(name, {}).get("monitor", f"127.0.0.1:{MONITORS[name]}")
    return Child(
        name,
        [sys.executable, "-m", "portcullis.cli.main", name, "--config", str(config)],
        f"http://{monitor}/readyz",
        state / "log" / f"{name}.log",
    )


def _auditor_defaults(state: Path, source: ConfigSource) -> dict[str, str]:
    """The auditor's keys for a configuration that says nothing of it: with the other state.

    Its monitoring port gives way to whatever has the default one.
    """
    if "auditor" in source.data:
        return {}
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", MONITORS["auditor"]))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        "PORTCULLIS_AUDITOR__DIR": str(state / "audit"),
        "PORTCULLIS_AUDITOR__KEY_FILE": str(state / "keys" / "audit-signing-key.pem"),
        "PORTCULLIS_AUDITOR__MONITOR": f"127.0.0.1:{port}",
    }


def _first_client(state: Path, context: Context) -> None:
    """Make the first API client, with every scope."""
    path = state / "client.json"
    if path.exists():
        return
    gateway = GatewayConfig.of(context.source())
    client = register(context, "first")
    url = f"http://{gateway.listen}"
    path.touch(mode=0o600)
    path.write_text(
        json.dumps(
            {
                "client_id": client.client_id,
                "client_secret": client.client_secret,
                "token_url": f"{url}/oauth/token",
                "api_url": url,
            },
            indent=1,
        ),
        encoding="utf-8",
    )


def _pretend_boxes(state: Path, context: Context) -> None:
    """Make the factory data of ten pretend boxes and import their keys."""
    path = state / "devices.json"
    if path.exists():
        return
    boxes = [
        {"device_id": str(number), "device_key": secrets.token_hex(32)} for number in PRETEND_BOXES
    ]
    vendor_file = state / "devices.csv"
    with vendor_file.open("w", encoding="utf-8", newline="") as file:
        vendor_file.chmod(0o600)
        writer = csv.writer(file)
        writer.writerow(["device_id", "key_hex"])
        writer.writerows(box.values() for box in boxes)
    import_with_bar(context, vendor_file)
    vendor_file.unlink()
    path.touch(mode=0o600)
    path.write_text(json.dumps(boxes, indent=1), encoding="utf-8")
