"""`python -m tests.faults.fuzz TARGET --runs N [--seed S]`: one target, or `every`.

An input's first byte says which target it is for. The exit status says how it went.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import atheris

READERS = ["dvbwire", "stbsim", "portcullis.emm", "portcullis.mux", "portcullis.cycler"]

with atheris.instrument_imports(include=READERS):
    from portcullis.runtime.config import LogConfig
    from portcullis.runtime.logging import set_up_logging
    from tests.faults.fuzz.mutators import mutated
    from tests.faults.fuzz.seeds import SEEDS
    from tests.faults.fuzz.targets import EVERY, TARGETS

MAX_INPUT_BYTES = 8192
HANG_S = 20
MEMORY_MIB = 1024
GUIDED = 0.4  # of the mutations are libFuzzer's own; the others keep the outer form


class StillLoop(asyncio.AbstractEventLoop):
    """A loop in which no time passes: sessions may set timers, and none fires."""

    def time(self) -> float:
        """It is always now."""
        return 0.0

    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, **_: object
    ) -> asyncio.TimerHandle:
        """Never."""
        return asyncio.TimerHandle(when, callback, args, self)

    def get_debug(self) -> bool:
        """As handles ask."""
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing to forget."""


def main() -> None:
    """Fuzz one target; does not return: libFuzzer ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz")
    parser.add_argument("target", choices=(*TARGETS, EVERY))
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0, help="0: by chance")
    chosen = parser.parse_args()
    set_up_logging("fuzz", LogConfig(level="critical"))
    names = list(TARGETS) if chosen.target == EVERY else [chosen.target]
    corpus = Path(tempfile.mkdtemp(prefix="portcullis-fuzz-"))
    for index, name in enumerate(names):
        for number, seed in enumerate(SEEDS[name]()):
            (corpus / f"{name}-{number}").write_bytes(bytes((index,)) + seed)

    def run(data: bytes) -> None:
        if data:
            TARGETS[names[data[0] % len(names)]](data[1:])

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = Random(seed)
        if not data or rng.random() < GUIDED:
            return bytes(atheris.Mutate(data, max_size))
        return (data[:1] + mutated(names[data[0] % len(names)], data[1:], rng))[:max_size]

    options = [
        f"-runs={chosen.runs}",
        f"-seed={chosen.seed}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={HANG_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={corpus}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], run, custom_mutator=mutate)
    asyncio._set_running_loop(StillLoop())
    atheris.Fuzz()


if __name__ == "__main__":
    main()
