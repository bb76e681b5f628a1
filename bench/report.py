"""What is written of `var/bench/*.json`: the page of the benchmarks, and what is planned with."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.result import RESULTS, load

NAMES: Mapping[str, str] = {
    "envelope": "sealing in the batch path, one fresh DEK an EMM",
    "encryptor": "the same through the running encryptor's RPC, device keys opened",
    "encryptor-hsm": "sealing with the master in a PKCS#11 token, device keys cached or not",
    "carousel-memory": "resident memory of a cycler with 1,000,000 EMMs",
    "carousel-load": "a cold cycler with 1,000,000 EMMs, until it has read all and airs",
    "air": "packets sent in a CPU second, as-run log and class logic on",
    "pace": "how evenly packets leave, at a time-stamping multiplexer",
    "asrun": "the as-run log: what it costs, how large it is, how fast it answers",
    "import": "device keys from an encrypted vendor file through `portcullis keys import-devices`",
    "gateway": "orders accepted a second, durable, 64 clients, one worker",
    "batch": "orders a second through POST /batch, durable",
    "latency": "an order until it is on air, all services, 200 orders/s, 100,000 boxes",
    "scale": "an EMM aired, a box in memory, claims and polls, from 1,000 to 1,000,000 boxes",
    "generate": "a re-key: due boxes claimed, sealed, written",
    "several": "EMMGs, encryptors and gateways by one, two and four",
}
"""Every benchmark, in the order in which they are run, and what it measures."""

PAGE = Path("docs/benchmarks.md")
PLOTTED: Mapping[str, str] = {
    "scale": "what it costs over the number of boxes",
    "several": "what they carry, and who uses the cores",
}
"""Benchmarks with a plot of their own, `docs/benchmarks-NAME.svg` (bench/plots.py)."""
REASONS: Mapping[str, str] = {
    "envelope": "each EMM has a key of its own; to make its cipher, to encrypt and to wrap its key"
    " take 93 % of the time, inside OpenSSL and its binding. Not tried: a binding that seals a"
    " batch in one call",
    "encryptor": "two fifths of an EMM's time are its KEK (opened, derived), a quarter the same"
    " primitives as in `envelope`; an empty call costs about 1 ms, shared by 1000 EMMs",
    "generate": "all processes together use two to three times the CPU of the bare INSERT, on both"
    " cores: the database reads what a state is made of, updates the device's row and three entries"
    " of indexes, and purges what was there before; the EMMG takes a quarter. Not tried: a"
    " database on cores of its own; a log of changes, a row a commit, in place of the index on"
    " `revision`, which takes a tenth",
    "air": "of 1.15 µs a packet with twelve streams, to make packets and messages takes 0.3, to"
    " choose them 0.28, the as-run log and all other threads 0.28, to send 0.12; C takes 0.33 in"
    " all. One stream alone wakes up 500 times a second for 87 packets, and finds its caches cold."
    " Not tried: packets kept ready in memory (188 bytes each), and a process for the log: half of"
    " the 1.15 µs would remain",
    "gateway": "a group of 64 orders is six round trips of the one writer, and its rows take the"
    " database 110 µs an order; HTTP work of the next group beside it costs more than it saves, as"
    " the two threads then wait for each other's interpreter. Not tried: a process of its own for"
    " the writer",
    "latency": "an order takes 6.6 ms of CPU of all services together, so two cores are busy for"
    " two thirds; and it waits three times: for the group of orders before it, for an EMMG's next"
    " round (30 ms) and for the next look at the feed (17 ms)",
    "pace": "what the machine is late at the end of a second is missing in it: one wake-up that"
    " comes 5 ms late is half a percent",
    "several": "both cores are full with one of each. An encryptor keeps the KEKs of boxes it has"
    " sealed for, of no others: four took 0.087 of the cores after one re-key, 0.065 after a dozen",
    "batch": "the database takes 1.5 times the CPU of the bare INSERT (the devices are locked, read"
    " and updated, too), and the gateway's writer a third as long before it",
}
"""Why a benchmark falls short of its goal, as far as it is known; shown where it does."""
CONSTANTS = Path("src/portcullis/cli/measured.json")
_CONSTANTS: Mapping[str, tuple[str, str]] = {
    "gateway_us_per_order": ("gateway", "µs of CPU an order, gateway"),
    "database_us_per_order": ("gateway", "µs of CPU an order, database"),
    "emmg_us_per_state": ("generate", "one EMMG: µs of CPU a state, emmg"),
    "encryptor_us_per_state": ("generate", "one EMMG: µs of CPU a state, encryptor"),
    "database_us_per_state": ("generate", "one EMMG: µs of CPU a state, database"),
    "cycler_us_per_packet": ("air", "µs of CPU a packet aired over TCP"),
    "states_per_s": ("generate", "one EMMG: states/s"),
    "bytes_per_order": ("batch", "bytes an order keeps in the database"),
    "redo_bytes_per_order": ("batch", "bytes an order writes to the redo log"),
    "bytes_per_box": ("scale", "bytes a box keeps in the database"),
    "cycler_bytes_per_box": ("scale", "bytes of memory a box, 1000000 boxes"),
    "asrun_bytes_per_record": ("asrun", "bytes of a record of the day"),
}
"""What `portcullis plan` reckons with: the benchmark and the figure that each comes from."""


def missing() -> list[str]:
    """Benchmarks of which there is no result yet."""
    return [name for name in NAMES if not (RESULTS / f"{name}.json").exists()]


def write_page(profiles: Sequence[str] = ()) -> None:
    """Write `docs/benchmarks.md`: a row a criterion, then the figures and the machine.

    What has no result yet is named. `profiles`: what stands at the end.
    """
    absent = missing()
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; `make bench-NAME` repeats one. Each value is a ratio taken in",
        "one run against what stands beside it.",
        "",
        *([f"No result yet: {', '.join(f'`{name}`' for name in absent)}.", ""] if absent else []),
        "![each criterion as times its floor](benchmarks.svg)",
        "",
        "| benchmark | criterion | value | floor | goal | verdict |",
        "|---|---|---|---|---|---|",
    ]
    details: list[str] = []
    for name, what in NAMES.items():
        if name in absent:
            continue
        result, machine = load(name)
        lines += [
            f"| `{name}` | {one.what} | {one.value:.3g} {one.unit} | {one.floor:g} | {one.goal:g}"
            f" | {one.verdict()} |"
            for one in result.criteria
        ]
        details += ["", f"## `{name}`", "", f"{what}, against {result.against}.", ""]
        if name in PLOTTED:
            details += [f"![{PLOTTED[name]}](benchmarks-{name}.svg)", ""]
        if result.verdict() != "goal" and name in REASONS:
            details += [f"Short of the goal: {REASONS[name]}.", ""]
        details += [f"- {figure}: {value}" for figure, value in result.figures.items()]
        details.append(f"- machine: {', '.join(f'{key} {it}' for key, it in machine.items())}")
    PAGE.write_text("\n".join([*lines, *details, *profiles, ""]), encoding="utf-8")


def write_constants() -> None:
    """Write what `portcullis plan` reckons with, of the benchmarks there are results of."""
    found: dict[str, object] = {}
    for constant, (name, figure) in _CONSTANTS.items():
        if (RESULTS / f"{name}.json").exists():
            result, machine = load(name)
            found[constant] = result.figures[figure]
            found["machine"] = machine["cpu"]
    CONSTANTS.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", "utf-8")
