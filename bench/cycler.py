"""A cycler process under measurement, with the multiplexer it airs to."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.mariadb import free_port
from bench.processes import PORTCULLIS, folder, metric, running, service, until

Drain = Callable[[int], AbstractContextManager[None]]
STEADY = '[[cycler.stream.class]]\nname = "steady"\nevery = "{every}"\n'


@dataclass
class Cycler:
    """What runs.

    Attributes:
        pid: of the cycler.
        home: its folder: configuration, as-run log, journal of the multiplexer.
        started_at: when the process was started, Unix seconds.
    """

    pid: int
    home: Path
    monitor: str
    started_at: float
    mux: "subprocess.Popen[bytes]"

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        return metric(self.monitor, name)

    def noted(self) -> dict[str, NDArray[np.float64]]:
        """End the multiplexer; what it has noted: by client_id, (Unix seconds, packets)."""
        self.mux.terminate()
        self.mux.wait()
        with np.load(self.home / "mux.npz") as arrays:
            return dict(arrays)


@contextmanager
def cycler(
    url: str,
    streams: Sequence[str],
    program: Sequence[str] = PORTCULLIS,
    drain: Drain | None = None,
) -> Iterator[Cycler]:
    """A cycler on the database at `url`, and its multiplexer; `streams`: TOML of each stream.

    drain: what takes the datagrams on a port in the place of the multiplexer, which notes them.
    """
    with ExitStack() as stack:
        home = stack.enter_context(folder())
        port, monitor = free_port(), f"127.0.0.1:{free_port()}"
        tables = [
            f'[[cycler.stream]]\nclient_id = {0xFFF00001 + i}\nmux = "127.0.0.1:{port}"\n{one}'
            for i, one in enumerate(streams)
        ]
        config = home / "portcullis.toml"
        config.write_text(
            f'[database]\nurl = "{url}"\n[cycler]\nmonitor = "{monitor}"\n'
            f'asrun_dir = "{home}/asrun"\n' + "\n".join(tables),
            encoding="utf-8",
        )
        log = home / "mux.log"
        command = [sys.executable, "-m", "bench.timing_mux", str(port), str(home / "mux.npz")]
        if drain is not None:
            command.append("no-udp")
            stack.enter_context(drain(port))
        mux = stack.enter_context(running(command, log))
        until(lambda: _listens(port), mux, log)
        started_at = time.time()
        process = stack.enter_context(service("cycler", config, monitor, program=program))
        yield Cycler(process.pid, home, monitor, started_at, mux)


def _listens(port: int) -> bool:
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
    return any(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines[1:]
    )
