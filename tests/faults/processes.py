"""Services as real processes: started together, restarted when they die, killed on request."""

import http.client
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

_LOOK_S = 0.02
_RESTART_S = 0.1  # as systemd does
_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 20.0


def answers_ok(port: int, path: str = "/readyz") -> bool:
    """Whether a monitoring port says 200 now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@dataclass
class Part:
    """One process of the head-end.

    Attributes:
        is_held: dead on purpose, until `Keeper.let`.
        ready_at: monotonic time of the first readiness since the last start; None before.
    """

    name: str
    command: Sequence[str]
    is_ready: Callable[[], bool]
    environ: Mapping[str, str] = field(default_factory=dict)
    is_held: bool = False
    process: subprocess.Popen[bytes] | None = None
    died_at: float | None = None
    ready_at: float | None = None
    is_doomed: bool = False


class Keeper:
    """A supervisor that a test can turn against its own processes.

    Attributes:
        kills: how many processes were killed on purpose.
        restarts_s: seconds from each death to readiness.
        own_deaths: what ended although nobody had asked for it.
    """

    def __init__(self, parts: Sequence[Part], logs: Path) -> None:
        self.parts = {part.name: part for part in parts}
        self.kills = 0
        self.restarts_s: list[float] = []
        self.own_deaths: list[str] = []
        self._logs = logs
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="keeper", daemon=True)

    def __enter__(self) -> Self:
        for part in self.parts.values():
            self._start(part)
        self._watcher.start()
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._watcher.join()
        running = [part.process for part in self.parts.values() if part.process is not None]
        for process in running:
            process.terminate()
        end = time.monotonic() + _STOP_TIMEOUT_S
        for process in running:
            try:
                process.wait(max(end - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_ready(self, *names: str, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Wait until the parts named, or all that are not held, say that they are ready."""
        end = time.monotonic() + timeout_s
        wanted = [self.parts[name] for name in names or self.parts]
        while waiting := [p.name for p in wanted if not p.is_held and not self._ready(p)]:
            if time.monotonic() > end:
                tails = "\n".join(self.tail(name) for name in waiting)
                raise AssertionError(f"not ready after {timeout_s:.0f} s: {waiting}\n{tails}")
            time.sleep(_LOOK_S)

    def wait_back(self, name: str, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Wait until what was ended has been started again and is ready."""
        end = time.monotonic() + timeout_s
        while self.parts[name].died_at is not None:
            assert time.monotonic() < end, self.tail(name)
            time.sleep(_LOOK_S)

    def tail(self, name: str) -> str:
        """The end of a part's log."""
        path = self._logs / f"{name}.log"
        return f"{path}:\n" + path.read_text(encoding="utf-8", errors="replace")[-2000:]

    def kill(self, name: str) -> None:
        """Kill -9; it is started again at once."""
        self._end(name, signal.SIGKILL)
        self.kills += 1

    def doom(self, name: str) -> subprocess.Popen[bytes]:
        """Expect a part to kill itself soon, and start it again then; its process."""
        part = self.parts[name]
        with self._lock:
            assert part.process is not None
            part.is_doomed = True
            return part.process

    def stop(self, name: str) -> None:
        """Ask it to stop (SIGTERM); it is started again once it has."""
        self._end(name, signal.SIGTERM)

    def hold(self, name: str) -> None:
        """Kill -9, and leave it dead until `let`."""
        self.parts[name].is_held = True
        self.kill(name)

    def let(self, name: str) -> None:
        """Start what was held."""
        self.parts[name].is_held = False

    @contextmanager
    def hung(self, *names: str) -> Iterator[None]:
        """Have parts hang: they hold what they have and answer nobody (SIGSTOP)."""
        pids = [part.process.pid for name in names if (part := self.parts[name]).process]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def _end(self, name: str, number: signal.Signals) -> None:
        part = self.parts[name]
        with self._lock:
            if part.process is not None and part.process.poll() is None:
                part.is_doomed = True
                part.died_at = time.monotonic()
                part.process.send_signal(number)

    def _start(self, part: Part) -> None:
        part.ready_at = None
        part.is_doomed = False
        with (self._logs / f"{part.name}.log").open("ab") as log:
            part.process = subprocess.Popen(
                part.command,
                env=os.environ | part.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _ready(self, part: Part) -> bool:
        return part.process is not None and part.process.poll() is None and part.is_ready()

    def _watch(self) -> None:
        while not self._ending.wait(_LOOK_S):
            for part in self.parts.values():
                self._look_after(part)

    def _look_after(self, part: Part) -> None:
        with self._lock:
            assert part.process is not None
            if part.process.poll() is not None and not part.is_held:
                now = time.monotonic()
                if part.died_at is None:
                    part.died_at = now
                if not part.is_doomed:
                    part.is_doomed = True
                    self.own_deaths.append(f"{part.name} ({part.process.returncode})")
                if now - part.died_at >= _RESTART_S:
                    self._start(part)
        if part.ready_at is None and self._ready(part):
            part.ready_at = time.monotonic()
            if part.died_at is not None:
                self.restarts_s.append(part.ready_at - part.died_at)
                part.died_at = None
