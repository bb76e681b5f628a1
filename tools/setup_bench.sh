#!/bin/sh
# What the benchmarks need beyond `make setup`: the peers they measure against, and plots.
set -eu
cd "$(dirname "$0")/.."

if ! cmp -s requirements/bench.txt .venv/installed-bench.txt; then
    printf '%s\n' 'setup: installing the Python packages of the benchmarks' >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --require-hashes -r requirements/bench.txt
    cp requirements/bench.txt .venv/installed-bench.txt
fi
