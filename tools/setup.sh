#!/bin/sh
# Set up what the Makefile's targets need: Debian packages, the virtual
# environment, the locked Python packages. Safe to run again: each step is
# skipped when it is already done.
#
#   tools/setup.sh [PACKAGE ...]     the Debian packages to have as well
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "setup: $*" >&2; }

missing=''
for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
        missing="$missing $package"
done

python=''
for candidate in python3.11 python3.12 python3.13 python3; do
    if command -v "$candidate" >/dev/null &&
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || { say 'Python 3.11 or newer is needed: apt-get install python3'; exit 1; }
"$python" -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
        as_root=''
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root='sudo -n'
    else
        say "these Debian packages are missing and need root; install them by hand:"
        say "    apt-get install --no-install-recommends$missing"
        exit 1
    fi
    say "installing Debian packages:$missing"
    mkdir -p var
    if ! {
        $as_root apt-get update &&
            $as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y --no-install-recommends $missing
    } >var/apt.log 2>&1; then
        tail -n 20 var/apt.log >&2
        say "apt-get failed (whole log: var/apt.log)"
        exit 1
    fi
fi

if [ ! -x .venv/bin/python ]; then
    say 'making the virtual environment .venv'
    "$python" -m venv .venv
fi
if ! cmp -s requirements/dev.txt .venv/installed.txt; then
    say 'installing the locked Python packages'
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --require-hashes -r requirements/dev.txt
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --no-deps --no-build-isolation --editable .
    cp requirements/dev.txt .venv/installed.txt
fi
