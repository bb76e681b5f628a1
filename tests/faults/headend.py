"""The whole head-end as production runs it: several of each, HAProxy with TLS before them."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from demo.headend import make_boxes
from tests.cluster import YESTERDAY
from tests.faults.processes import Keeper, Part, answers_ok
from tests.faults.sms import PRODUCTS, Access
from tests.ports import free_ports

REPOSITORY = Path(__file__).parents[2]
HAPROXY = REPOSITORY / "deploy" / "haproxy" / "haproxy.cfg"

_SECTIONS = {
    "gateway": """\
listen = "127.0.0.1:{listen}"
request_log = "{home}/{name}.jsonl"
oauth_dir = "{home}/oauth"
issuer = "https://portcullis.test"
token_lifetime = "12h"
""",
    "emmg": """\
encryptor = {encryptors}
{tls}
""",
    "encryptor": """\
listen = "127.0.0.1:{listen}"
master_key_file = "{home}/master.json"
{tls}
[encryptor.allow]
seal = ["emmg"]
make_chains = ["scheduler", "keys"]
import_keys = ["keys"]
""",
    "scheduler": """\
encryptor = {encryptors}
purge_every = "2s"
{tls}
""",
    "auditor": """\
dir = "{home}/{name}"
key_file = "{home}/{name}.key"
anchors = ["dir:{home}/anchors"]
sign_every = "1s"
""",
    "mux": """\
listen = "127.0.0.1:{listen}"
outputs = ["udp://127.0.0.1:{boxes}"]
bitrate_kbit_s = 2000
""",
    "cycler": """\
asrun_dir = "{home}/{name}-asrun"

[[cycler.stream]]
client_id = 0xFFF00001
data_id = 1
data_channel_id = {number}
mux = "127.0.0.1:{mux}"
bandwidth_kbit_s = 1000

[[cycler.stream.class]]
name = "fresh"
every = "2s"
airings = 5
[[cycler.stream.class]]
name = "recent"
every = "10s"
airings = 10
min_share = 0.1
[[cycler.stream.class]]
name = "steady"
every = "20s"
min_share = 0.3
""",
}

DatabaseSection = Callable[[str], str]
"""The TOML of [database] for a room, or for the commands about keys."""


@dataclass
class Plan:
    """How many of each, and what stands between them.

    Attributes:
        database: the [database] section of each room.
        boxes_port: UDP port that the stream goes to.
        counts: processes of each room.
        reach: where a caller finds another part, by (caller's room, part's name); a proxy's port
            where one stands between them.
        environ: of every service, beside the test's own.
    """

    database: DatabaseSection
    boxes_port: int
    counts: Mapping[str, int] = field(
        default_factory=lambda: {
            "encryptor": 2,
            "mux": 1,
            "scheduler": 2,
            "emmg": 2,
            "cycler": 2,
            "gateway": 2,
        }
    )
    reach: Callable[[str, str, int], int] = lambda _caller, _part, port: port
    environ: Mapping[str, str] = field(default_factory=dict)


class HeadEnd:
    """Everything beside database and boxes; running between `with` and its end."""

    def __init__(self, home: Path, plan: Plan) -> None:
        self.home = home
        self.plan = plan
        self.names = {
            room: [f"{room}{number}" for number in range(1, count + 1)]
            for room, count in plan.counts.items()
        }
        every = [name for names in self.names.values() for name in names]
        ports = free_ports(2 * len(every) + 2)
        self.monitors = dict(zip(every, ports, strict=False))
        self.listens = dict(zip(every, ports[len(every) :], strict=False))
        self.api_port, self.stats_port = ports[-2:]
        self.keeper: Keeper
        self._stack = ExitStack()

    @property
    def services(self) -> Sequence[str]:
        """Every service process by name, HAProxy left out."""
        return list(self.monitors)

    def config(self, name: str) -> Path:
        """The configuration file of one process, or of the commands about keys."""
        return self.home / f"{name}.toml"

    def prepare(self, device_ids: Sequence[str]) -> None:
        """Make certificate, configurations, master key, API client, boxes. The schema is there."""
        (self.home / "state").mkdir()
        make_boxes(self.home, list(device_ids))
        make_certificate(self.home)
        self._issue_certificates()
        for room, names in self.names.items():
            for number, name in enumerate(names, start=1):
                self._write_config(room, name, number)
        self.config("keys").write_text(
            f'[keys]\nencryptor = "127.0.0.1:{self.listens["encryptor1"]}"\n'
            + self._tls("keys")
            + self.plan.database("keys"),
            encoding="utf-8",
        )
        self.run("keys", "init", config=self.config("encryptor1"))
        scopes = ["device", "entitlement", "message", "product", "read"]
        made = self.run(
            *("clients", "add", "load", "--json"),
            *(word for scope in scopes for word in ("--scope", scope)),
            config=self.config("gateway1"),
        )
        client = json.loads(made)
        self.access = Access(
            f"https://127.0.0.1:{self.plan.reach('sms', 'haproxy', self.api_port)}",
            client["client_id"],
            client["client_secret"],
            self.home / "certificate.pem",
        )

    def _issue_certificates(self) -> None:
        """A CA, and a certificate for each room that speaks to the encryptor."""
        command = [*YESTERDAY, sys.executable, "-m", "portcullis.cli.main", "ca"]
        where = ["--dir", str(self.home / "tls")]
        subprocess.run([*command, "init", *where], check=True, stdout=subprocess.DEVNULL)
        for room in ("encryptor", "emmg", "scheduler", "keys"):
            host = ["--host", "127.0.0.1"]
            subprocess.run(
                [*command, "issue", room, *host, *where], check=True, stdout=subprocess.DEVNULL
            )

    def _tls(self, room: str) -> str:
        """The table of a room's certificate."""
        tls = self.home / "tls"
        return (
            f'[{room}.tls]\nca_file = "{tls}/ca.pem"\n'
            f'cert_file = "{tls}/{room}.pem"\nkey_file = "{tls}/{room}.key"\n'
        )

    def _write_config(self, room: str, name: str, number: int) -> None:
        def reach(part: str) -> int:
            return self.plan.reach(room, part, self.listens[part])

        encryptors = self.names["encryptor"]
        if number % 2 == 0:  # each begins with another, as docs/operations/health.md says
            encryptors = encryptors[::-1]
        section = _SECTIONS[room].format(
            home=self.home,
            name=name,
            number=number,
            listen=self.listens[name],
            encryptors=json.dumps([f"127.0.0.1:{reach(one)}" for one in encryptors]),
            mux=reach("mux1"),
            boxes=self.plan.boxes_port,
            tls=self._tls(room),
        )
        monitor = f'monitor = "127.0.0.1:{self.monitors[name]}"\n'
        database = "" if room in ("encryptor", "mux") else self.plan.database(room)
        self.config(name).write_text(f"[{room}]\n{monitor}{section}\n{database}", encoding="utf-8")

    def run(self, *words: str, config: Path) -> str:
        """Run a `portcullis` command to its end; its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "portcullis.cli.main", *words, "--config", str(config)],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def __enter__(self) -> Self:
        parts = [self._part(room, name) for room, names in self.names.items() for name in names]
        self.keeper = self._stack.enter_context(Keeper([*parts, self._haproxy()], self.home))
        try:
            self._stock()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _part(self, room: str, name: str) -> Part:
        command = [sys.executable, "-m", "portcullis.cli.main", room]
        monitor = self.monitors[name]
        return Part(
            name,
            [*command, "--config", str(self.config(name))],
            lambda: answers_ok(monitor),
            self.plan.environ,
        )

    def _haproxy(self) -> Part:
        first, second = self.names["gateway"]
        environ = {
            "API_BIND": f"127.0.0.1:{self.api_port}",
            "API_CERTIFICATE": str(self.home / "haproxy.pem"),
            "GATEWAY_1": self._gateway_address(first),
            "GATEWAY_1_MONITOR": str(self.monitors[first]),
            "GATEWAY_2": self._gateway_address(second),
            "GATEWAY_2_MONITOR": str(self.monitors[second]),
            "STATS_BIND": f"127.0.0.1:{self.stats_port}",
            "STATS_SOCKET": str(self.home / "haproxy.sock"),
            "LOG_TARGET": "stdout",
            "HAPROXY_UNPRIVILEGED": "1",
        }
        return Part(
            "haproxy",
            ["/usr/sbin/haproxy", "-db", "-f", str(HAPROXY)],
            lambda: answers_ok(self.stats_port, "/metrics"),
            environ,
        )

    def wait_balanced(self, *hung: str, timeout_s: float = 60.0) -> None:
        """Wait until HAProxy holds every gateway for ready, but those that hang for down."""
        url = f"http://127.0.0.1:{self.stats_port}/;csv"
        wanted = {name: "DOWN" if name in hung else "UP" for name in self.names["gateway"]}
        end = time.monotonic() + timeout_s
        while True:
            rows = csv.DictReader(httpx.get(url).text.removeprefix("# ").splitlines())
            status = {row["svname"]: row["status"] for row in rows if row["svname"] in wanted}
            if status == wanted:
                return
            assert time.monotonic() < end, status
            time.sleep(0.1)

    def _gateway_address(self, name: str) -> str:
        return f"127.0.0.1:{self.plan.reach('haproxy', name, self.listens[name])}"

    def _stock(self) -> None:
        """Device keys and products."""
        vendor_file = str(self.home / "state" / "devices.csv")
        self.run("keys", "import-devices", vendor_file, config=self.config("keys"))
        with httpx.Client(verify=self.access.tls(), base_url=self.access.url) as http:
            http.headers["Authorization"] = f"Bearer {self.access.token(http)}"
            for product_id in PRODUCTS:
                made = http.put(f"/products/{product_id}", json={"name": f"P{product_id}"})
                made.raise_for_status()


def make_certificate(home: Path) -> None:
    """A certificate for 127.0.0.1: certificate.pem to trust, haproxy.pem with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "portcullis.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (home / "certificate.pem").write_bytes(public)
    bundle = os.open(home / "haproxy.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(bundle, "wb") as file:
        file.write(public + private)
