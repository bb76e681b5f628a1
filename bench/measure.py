"""Time, CPU and memory as the operating system accounts for them."""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

Measured = Callable[[], float]
"""Runs once and returns what it cost or yielded."""


Round = Mapping[str, float]
"""What one round found of each subject."""


def in_rounds(subjects: Mapping[str, Measured], rounds: int) -> list[Round]:
    """Run all subjects in turn, `rounds` times."""
    return [{name: subject() for name, subject in subjects.items()} for _ in range(rounds)]


def medians(rounds: Sequence[Round]) -> dict[str, float]:
    """The median of each subject."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def median_ratio(rounds: Sequence[Round], ratio: Callable[[Round], float]) -> float:
    """The median of each round's ratio: a core's clock changes from one second to the next."""
    return statistics.median(map(ratio, rounds))


def interleave(subjects: Mapping[str, Measured], rounds: int) -> dict[str, float]:
    """Run all subjects in turn, `rounds` times; the median of each."""
    return medians(in_rounds(subjects, rounds))


def cpu_s(pid: int | None = None) -> float:
    """CPU seconds of a process, all its threads, ended ones too; by default of this one."""
    if pid is None:
        return time.process_time()
    return time.clock_gettime(~pid << 3 | 2)  # the kernel's clock id of another process's CPU


@dataclass
class Meter:
    """CPU of processes between `start` and `stop`, and the time that passed."""

    pids: Iterable[int | None]
    cpu: float = 0.0
    wall: float = 0.0

    def __enter__(self) -> Self:
        self._cpu = sum(cpu_s(pid) for pid in self.pids)
        self._wall = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self._wall
        self.cpu = sum(cpu_s(pid) for pid in self.pids) - self._cpu


def resident_bytes(pid: int | None = None) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid or os.getpid()}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def percentile(values: Iterable[float], percent: float) -> float:
    """The value that `percent` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
