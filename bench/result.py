"""What a benchmark found: criteria with floor and goal, and the figures behind them."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path("var/bench")


@dataclass(frozen=True)
class Criterion:
    """One number that is held to a floor and aims at a goal; both in `unit`."""

    what: str
    value: float
    floor: float
    goal: float
    unit: str = "×"
    less_is_better: bool = False

    def meets(self, bound: float) -> bool:
        """Whether the value is at least as good as `bound`."""
        return self.value <= bound if self.less_is_better else self.value >= bound

    def verdict(self) -> str:
        """`goal`, `floor` or `below the floor`."""
        if not self.meets(self.floor):
            return "below the floor"
        return "goal" if self.meets(self.goal) else "floor"


@dataclass(frozen=True)
class Result:
    """One benchmark. The first criterion is the `ratio`."""

    name: str
    against: str
    criteria: Sequence[Criterion]
    figures: Mapping[str, Any] = field(default_factory=dict)

    def verdict(self) -> str:
        """`goal`, `floor` or `below the floor`: the worst of the criteria."""
        verdicts = {one.verdict() for one in self.criteria}
        return next(word for word in ("below the floor", "floor", "goal") if word in verdicts)

    def save(self) -> Path:
        """Write `var/bench/NAME.json`."""
        first = self.criteria[0]
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        content = {
            "name": self.name,
            "ratio": first.value,
            "floor": first.floor,
            "goal": first.goal,
            "against": self.against,
            "figures": {**self.figures, "criteria": [asdict(one) for one in self.criteria]},
            "machine": machine(),
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path


def load(name: str) -> tuple[Result, Mapping[str, str]]:
    """Read a result back, with the machine it came from."""
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    figures = dict(content["figures"])
    criteria = [Criterion(**one) for one in figures.pop("criteria")]
    return Result(name, content["against"], criteria, figures), content["machine"]


def machine() -> dict[str, str]:
    """What the figures came from."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": f"{os.cpu_count()} × {model}",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "openssl": _first_line("openssl", "version"),
        "mariadb": _first_line("mariadbd", "--version"),
        "load_before": f"{os.getloadavg()[0]:.2f}",
    }


def _first_line(*command: str) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()[0]
