"""Real Prometheus, Alertmanager and exporters beside a head-end, on the files in deploy/."""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from tests.cluster import Cluster
from tests.faults.headend import HeadEnd
from tests.ports import free_ports

DEPLOY = Path(__file__).parents[2] / "deploy"
TIME_LAPSE = 10
"""How many times faster than in production all is scraped, evaluated, waited for and told."""

MISHAPS = {
    "portcullis_encryptor_refused_total",
    "portcullis_mux_refused_packets_total",
    "portcullis_scheduler_marked_devices_total",
    "portcullis_scheduler_purged_rows_total",
}
AIRING = "stream:portcullis_cycler_aired_packets:rate1m > 0"
"""True as long as packets go out."""

_WINDOW = re.compile(r"(?<=\[)(\d+)([smh])(?=\])")
_DURATION = re.compile(r"^(\s*(?:for|\w+_interval|group_wait): *)(\d+)([smh])\s*$", re.MULTILINE)
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000}
_START_S = 60.0


def faster(text: str) -> str:
    """The same rules or routes on a clock that runs `TIME_LAPSE` times as fast."""

    def shorten(number: str, unit: str) -> str:
        return f"{int(number) * _UNIT_MS[unit] // TIME_LAPSE}ms"

    text = _WINDOW.sub(lambda match: shorten(match[1], match[2]), text)
    return _DURATION.sub(lambda match: match[1] + shorten(match[2], match[3]), text)


class Webhook:
    """Hears what Alertmanager sends, for all of its receivers."""

    def __init__(self) -> None:
        self._heard = threading.Condition()
        self._alerts: list[dict[str, Any]] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.hear(self.path.removeprefix("/"), json.loads(body)["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as inherited)
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def hear(self, receiver: str, alerts: Sequence[dict[str, Any]]) -> None:
        """Note what came."""
        with self._heard:
            self._alerts += [{"receiver": receiver, **alert} for alert in alerts]
            self._heard.notify_all()

    def wait(
        self, receiver: str, alertname: str, status: str = "firing", **labels: str
    ) -> dict[str, Any]:
        """Wait until a receiver has been told; returns the alert. Half a minute is plenty."""
        wanted = {"alertname": alertname, **labels}

        def found() -> dict[str, Any] | None:
            for alert in self._alerts:
                told = (alert["receiver"], alert["status"]) == (receiver, status)
                if told and wanted.items() <= alert["labels"].items():
                    return alert
            return None

        with self._heard:
            alert = self._heard.wait_for(found, timeout=120)
            told = [(one["status"], one["labels"].get("alertname")) for one in self._alerts]
            assert alert, f"{status} {wanted} did not arrive at {receiver}: {told}"
            return alert

    def forget(self) -> None:
        """Start from here."""
        with self._heard:
            self._alerts.clear()

    def close(self) -> None:
        """Hear no more."""
        self._server.shutdown()
        self._server.server_close()


class Monitoring:
    """Prometheus with the shipped rules, Alertmanager with the shipped routes, exporters."""

    def __init__(self, home: Path, head_end: HeadEnd, cluster: Cluster) -> None:
        self.home = home
        self._head_end = head_end
        self._cluster = cluster
        self.webhook = Webhook()
        ports = free_ports(4 + len(cluster.nodes))
        self.prometheus, self.alertmanager, self._node, self._blackbox, *mysqld = ports
        self._mysqld = dict(zip(cluster.nodes, mysqld, strict=True))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        (self.home / "rules").mkdir(parents=True)
        for path in (DEPLOY / "prometheus" / "rules").glob("*.yml"):
            (self.home / "rules" / path.name).write_text(faster(path.read_text()))
        routes = faster((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
        routes = routes.replace("127.0.0.1:9099", f"127.0.0.1:{self.webhook.port}")
        (self.home / "alertmanager.yml").write_text(routes)
        (self.home / "prometheus.yml").write_text(yaml.safe_dump(self._scrape_config()))
        self._start_exporters()
        self._start(
            "prometheus-alertmanager",
            f"--config.file={self.home}/alertmanager.yml",
            f"--storage.path={self.home}/alertmanager",
            f"--web.listen-address=127.0.0.1:{self.alertmanager}",
            "--cluster.listen-address=",
        )
        self._start(
            "prometheus",
            f"--config.file={self.home}/prometheus.yml",
            f"--storage.tsdb.path={self.home}/tsdb",
            f"--web.listen-address=127.0.0.1:{self.prometheus}",
        )
        for port in (self.alertmanager, self.prometheus):
            _wait_ready(port)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        self.webhook.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What Prometheus answers now; raises AssertionError for an expression it refuses."""
        url = f"http://127.0.0.1:{self.prometheus}/api/v1/query"
        answer = httpx.get(url, params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def wait_for(self, expression: str, what: str = "", timeout_s: float = 60) -> None:
        """Wait until an expression has a result."""
        end = time.monotonic() + timeout_s
        while not self.query(expression):
            assert time.monotonic() < end, f"{what} never true: {expression}"
            time.sleep(0.2)  # the next scrape tells nobody

    def instances(self, expression: str) -> list[str]:
        """The head-end's processes of which an expression is true, by name."""
        names = {str(port): name for name, port in self._head_end.monitors.items()}
        found = self.query(expression)
        return [names[row["metric"]["instance"].rpartition(":")[2]] for row in found]

    def down(self) -> list[str]:
        """What is to be scraped and is not: job and address; all of it before its first scrape."""
        url = f"http://127.0.0.1:{self.prometheus}/api/v1/targets"
        targets = httpx.get(url, params={"state": "active"}).json()["data"]["activeTargets"]
        return [
            f"{one['labels']['job']} {one['scrapeUrl']}" for one in targets if one["health"] != "up"
        ]

    def rules_without_answer(self) -> list[str]:
        """Rules that are not evaluated, and recording rules that record nothing."""
        url = f"http://127.0.0.1:{self.prometheus}/api/v1/rules"
        groups = httpx.get(url).json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return [
            rule["name"]
            for rule in rules
            if rule["health"] != "ok"
            or (rule["type"] == "recording" and not self.query(rule["name"]))
        ]

    def inhibited(self, alertname: str) -> bool:
        """Whether Alertmanager holds an alert back because another tells its cause."""
        url = f"http://127.0.0.1:{self.alertmanager}/api/v2/alerts"
        alerts = httpx.get(url, params={"filter": f"alertname={alertname}"}).json()
        return any(alert["status"]["inhibitedBy"] for alert in alerts)

    def _scrape_config(self) -> dict[str, Any]:
        """The shipped configuration with this site's addresses, as an operator would put them."""
        config: dict[str, Any] = yaml.safe_load(
            faster((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        )
        [alertmanagers] = config["alerting"]["alertmanagers"]
        alertmanagers["static_configs"] = [{"targets": [f"127.0.0.1:{self.alertmanager}"]}]
        targets: dict[str, list[int]] = {
            f"portcullis-{room}": [self._head_end.monitors[name] for name in names]
            for room, names in self._head_end.names.items()
        }
        targets |= {"node": [self._node], "mysqld": [*self._mysqld.values()]}
        targets["certificate"] = [self._head_end.api_port]
        for job in config["scrape_configs"]:
            ports = targets.pop(job["job_name"], [])
            job["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
            for rule in job.get("relabel_configs", []):
                if rule.get("target_label") == "__address__":
                    rule["replacement"] = f"127.0.0.1:{self._blackbox}"
        assert not targets
        return config

    def _start_exporters(self) -> None:
        for name, node in self._cluster.nodes.items():
            self._start(
                "prometheus-mysqld-exporter",
                f"--web.listen-address=127.0.0.1:{self._mysqld[name]}",
                DATA_SOURCE_NAME=f"root@unix({node.home}/s)/",
            )
        self._start("prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{self._node}")
        self._start(
            "prometheus-blackbox-exporter",
            f"--config.file={DEPLOY}/prometheus/blackbox.yml",
            f"--web.listen-address=127.0.0.1:{self._blackbox}",
        )

    def _start(self, *command: str, **environ: str) -> None:
        log = self._stack.enter_context((self.home / f"{command[0]}.log").open("ab"))
        variables: Mapping[str, str] = os.environ | environ
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, cwd=self.home)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)


def _wait_ready(port: int) -> None:
    end = time.monotonic() + _START_S
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/-/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, f"port {port} is not ready"
        time.sleep(0.1)


def _expressions() -> Iterator[tuple[str, str]]:
    """Every query of every dashboard: panel, expression."""
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]


def dashboards_answered(monitoring: Monitoring) -> None:
    """Ask every query of the dashboards of a head-end that works.

    What counts mishaps may have nothing to show; anything else raises AssertionError if it has not.
    """
    for panel, expression in _expressions():
        asked = expression.replace('"$stream"', '".+"').replace("$__rate_interval", "30s")
        if MISHAPS & set(re.findall(r"portcullis_\w+", expression)):
            monitoring.query(asked)
        else:
            monitoring.wait_for(asked, panel)
