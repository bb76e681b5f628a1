"""Programs under measurement: started, waited for, ended."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

PORTCULLIS = [sys.executable, "-m", "portcullis.cli.main"]


@contextmanager
def running(command: Sequence[str], log: Path | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """A process, ended politely on leaving."""
    with (log or Path("/dev/null")).open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def service(
    name: str,
    config: Path,
    monitor: str,
    *,
    ready: str = "readyz",
    program: Sequence[str] = PORTCULLIS,
) -> Iterator["subprocess.Popen[bytes]"]:
    """One of our services, once it says that it is ready; `program` is `portcullis`."""
    log = config.with_name(f"{name}.log")
    with running([*program, name, "--config", str(config)], log) as process:
        until(lambda: _answers(f"http://{monitor}/{ready}"), process, log)
        yield process


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def metric(monitor: str, name: str) -> float:
    """The sum of a service's metric over the labels that `name` does not give."""
    lines = httpx.get(f"http://{monitor}/metrics", timeout=10).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def until(
    condition: Callable[[], bool],
    process: "subprocess.Popen[bytes]",
    log: Path,
    seconds: float = 120,
) -> None:
    """Wait for a process to get somewhere; raises RuntimeError with its log if it does not."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(log.read_text(encoding="utf-8", errors="replace")[-3000:])
        time.sleep(0.02)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for one benchmark's files, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="portcullis-bench-", dir="/var/tmp") as name:
        path = Path(name)
        path.chmod(0o755)  # the database server may run as another user
        yield path
