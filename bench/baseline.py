"""The C baselines of packets.c, built when they are needed."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import folder, running


@contextmanager
def packets() -> Iterator[Path]:
    """The program."""
    with folder() as home:
        program = home / "packets"
        source = Path(__file__).with_name("packets.c")
        subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", program, source], check=True)
        yield program


@contextmanager
def sink(program: Path, port: int) -> Iterator[None]:
    """Takes datagrams and drops them."""
    with running([str(program), "sink", str(port)]):
        yield


def sent_per_cpu_s(program: Path, port: int, seconds: float) -> float:
    """Packets a CPU second of the `sendmmsg` loop, to a sink that drops them."""
    with sink(program, port):
        run = subprocess.run(
            [program, "send", str(port), str(seconds)], check=True, capture_output=True, text=True
        )
    sent, cpu_s = run.stdout.split()
    return int(sent) / float(cpu_s)


def lateness_us(program: Path, kbit_s: int, seconds: float) -> list[float]:
    """How late a bare `clock_nanosleep` loop is with each message of seven packets."""
    run = subprocess.run(
        [program, "pace", str(kbit_s), str(seconds)], check=True, capture_output=True, text=True
    )
    return [float(line) for line in run.stdout.split()]
