"""`python -m bench [NAME …]`: measure and save; with several, write the page."""

import subprocess
import sys
from importlib import import_module

from bench.report import NAMES, missing, write_constants, write_page
from bench.result import RESULTS, Result, load


def measure(name: str) -> Result:
    """Run one benchmark in this process and save what it found."""
    result: Result = import_module(f"bench.{name.replace('-', '_')}").run()
    result.save()
    return result


def show(result: Result) -> None:
    """Print a result, a line a criterion."""
    print(f"{result.name}: {result.verdict()}")
    for one in result.criteria:
        bounds = f"floor {one.floor:g}, goal {one.goal:g}"
        print(f"  {one.what}: {one.value:.3g} {one.unit} ({bounds})")
    for name, value in result.figures.items():
        print(f"    {name}: {value}")


def main() -> int:
    """One name: measured here. None or several: each in a process of its own."""
    names = sys.argv[1:] or list(NAMES)
    if unknown := set(names) - set(NAMES):
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
        return 2
    if len(names) == 1:
        show(measure(names[0]))
    else:
        for name in names:
            (RESULTS / f"{name}.json").unlink(missing_ok=True)
            # It says itself what went wrong; the others are measured all the same.
            subprocess.run([sys.executable, "-m", "bench", name], check=False)
        # Loaded here: one benchmark alone is measured in a process that has no need of them.
        plots, profiles = import_module("bench.plots"), import_module("bench.profiles")
        profiles.run()
        write_page(profiles.lines())
        write_constants()
        plots.draw({name: load(name)[0] for name in NAMES if name not in missing()})
    failed = [name for name in names if name in missing()]
    below = [
        name
        for name in names
        if name not in failed and load(name)[0].verdict() == "below the floor"
    ]
    for what, which in (("without a result", failed), ("below the floor", below)):
        if which:
            print(f"{what}: {', '.join(which)}")
    return int(bool(failed or below))


if __name__ == "__main__":
    sys.exit(main())
