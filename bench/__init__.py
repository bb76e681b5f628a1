"""Benchmarks: each a ratio, taken in one run, to a named limit or peer (docs/benchmarks.md).

`python -m bench [NAME …]` measures and writes `var/bench/NAME.json`; without
names it measures all and writes `docs/benchmarks.md` and the plots anew. CPU
comes from the operating system's accounts; baseline and subject take turns,
so that what else the machine does falls on both.
"""
