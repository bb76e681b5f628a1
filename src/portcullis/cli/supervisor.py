"""Services as child processes: started in order, waited for, restarted, stopped in reverse."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import httpx

from portcullis.runtime.errors import PortcullisError

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
RESTART_AFTER_S = 1.0


class StartError(PortcullisError):
    """A service did not come up."""


@dataclass
class Child:
    """One service: its command, where it says that it is ready, where its log goes."""

    name: str
    command: Sequence[str]
    ready_url: str
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    ended_at: float | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the process; its log is appended to."""
        self.ended_at = None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 (this project's own command)  # nosec B603
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        """Whether the service answers that it is ready."""
        try:
            return httpx.get(self.ready_url, timeout=2.0).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


class Supervisor:
    """Starts children in order and keeps them running until it is told to stop."""

    def __init__(self, children: Sequence[Child]) -> None:
        self.children = children
        self.stopping = Event()

    def start(self) -> None:
        """Start each and wait until it is ready; raises StartError with the end of its log."""
        for child in self.children:
            child.start()
            end = time.monotonic() + START_TIMEOUT_S
            while not child.is_ready():
                assert child.process is not None  # noqa: S101 (start() has set it)
                if child.process.poll() is not None or time.monotonic() > end:
                    tail = child.log.read_text(encoding="utf-8", errors="replace")[-2000:]
                    raise StartError(f"{child.name} did not start ({child.log}):\n{tail}")
                if self.stopping.wait(0.05):
                    return

    def watch(self) -> None:
        """Restart what ends, until `stopping` is set."""
        while not self.stopping.wait(0.2):
            for child in self.children:
                if child.process is None or child.process.poll() is None:
                    continue
                if child.ended_at is None:
                    child.ended_at = time.monotonic()
                    sys.stderr.write(
                        f"{child.name} ended with {child.process.returncode}; restarting\n"
                    )
                elif time.monotonic() - child.ended_at > RESTART_AFTER_S:
                    child.start()

    def stop(self) -> None:
        """Stop in reverse order: SIGTERM, and SIGKILL to what has not ended in time."""
        for child in reversed(self.children):
            if child.process is None or child.process.poll() is not None:
                continue
            child.process.send_signal(signal.SIGTERM)
            try:
                child.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                sys.stderr.write(f"{child.name} did not stop in time; killed\n")
                child.process.kill()
                child.process.wait()
