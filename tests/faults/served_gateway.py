"""One gateway as a process of its own, for what is to be thrown at it."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from demo.headend import free_ports
from tests.faults.processes import answers_ok

CONFIG = """\
[database]
url = "{database_url}"

[gateway]
listen = "127.0.0.1:{port}"
monitor = "127.0.0.1:{monitor}"
request_log = "{home}/requests.jsonl"
oauth_dir = "{home}/oauth"
rate_per_client_s = 1e9
"""
SCOPES = ("device", "entitlement", "message", "product", "read")
START_S = 60


class Gateway:
    """Configuration, an API client with every scope, and the process."""

    def __init__(self, home: Path, database_url: str) -> None:
        self.home = home
        self.port, self.monitor = free_ports(2)
        self.config = home / "portcullis.toml"
        text = CONFIG.format(
            database_url=database_url, port=self.port, monitor=self.monitor, home=home
        )
        self.config.write_text(text, encoding="utf-8")
        self.url = f"http://127.0.0.1:{self.port}"
        self._run("migrate")
        scopes = [word for scope in SCOPES for word in ("--scope", scope)]
        self._client = self._run("clients", "add", "rubbish", *scopes)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command("gateway"), stdout=log, stderr=log)
        end = time.monotonic() + START_S
        while not self.is_ready():
            assert time.monotonic() < end, self._log.read_text(errors="replace")
            time.sleep(0.1)  # a monitoring port is asked, it does not tell

    @property
    def _log(self) -> Path:
        return self.home / "gateway.log"

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "portcullis.cli.main", *words, "--config", str(self.config)]

    def _run(self, *words: str) -> Any:  # noqa: ANN401 (JSON)
        done = subprocess.run([*self._command(*words), "--json"], check=True, capture_output=True)
        return json.loads(done.stdout)

    def is_ready(self) -> bool:
        """Whether it runs and says that all is well."""
        return self.process.poll() is None and answers_ok(self.monitor)

    def token(self) -> str:
        """An access token of the built-in token endpoint."""
        answer = httpx.post(
            f"{self.url}/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(self._client["client_id"], self._client["client_secret"]),
            timeout=20,
        )
        return str(answer.raise_for_status().json()["access_token"])

    def resident_mib(self) -> float:
        """What the process holds in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.findall(r"VmRSS:\s*(\d+)", status)[0]) / 1024

    def errors_logged(self) -> list[str]:
        """Lines of its log at level error, and lines that are no JSON: stray traces."""
        return [
            line
            for line in self._log.read_text(errors="replace").splitlines()
            if not line.startswith("{") or json.loads(line)["level"] in ("error", "critical")
        ]

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
