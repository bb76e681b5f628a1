"""The commands of docs/operations, run as they stand on servers of the tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cluster import Node

REPOSITORY = Path(__file__).parent.parent
PAGES = REPOSITORY / "docs" / "operations"
_SERVICE = re.compile(
    r"^systemctl ((?:start|stop) mariadb|set-environment MYSQLD_OPTS=.*|unset-environment .*)\n",
    re.MULTILINE,
)


def blocks(page: str, heading: str) -> list[str]:
    """The shell blocks of a section, in order."""
    text = (PAGES / page).read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"^( *)```sh\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def run(block: str, home: Path, node: Node | None = None, **variables: str) -> str:
    """Run a block as root on a server would, or where there is none; returns what it printed.

    What a server has by itself is stood in for: the service manager, and its MariaDB programs'
    configuration, which is found in /etc there. Raises AssertionError with all that was said.
    """
    bin_ = home / "bin"
    bin_.mkdir(exist_ok=True)
    _script(bin_ / "portcullis", f'exec {sys.executable} -m portcullis.cli.main "$@"')
    _script(bin_ / "chown", '[ "$(id -u)" != 0 ] || exec /bin/chown "$@"')
    if node is not None:
        own = f"--defaults-file={node.home}/my.cnf"
        # Whoever runs the tests is root to the server, as root is on a server of its own.
        more = {"mariadb-install-db": "--auth-root-authentication-method=normal"}
        for program in ("mariadb", "mariadb-backup", "mariadb-install-db"):
            _script(
                bin_ / program,
                f'case $1 in --*defaults*) exec /usr/bin/{program} "$@" ;; esac\n'
                f'exec /usr/bin/{program} {own} "$@" {more.get(program, "")}',
            )
    environment = os.environ | variables | {"PATH": f"{bin_}:{os.environ['PATH']}"}
    options: list[str] = []
    said = ""
    for number, part in enumerate(_SERVICE.split(block)):
        if number % 2:  # a call of the service manager
            assert node is not None, block
            if part == "stop mariadb":
                node.stop()
            elif part == "start mariadb":
                node.start(*options)
            else:
                options = part.split("=", maxsplit=1)[1:]
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", part],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{part}\n{done.stdout}\n{done.stderr}"
        said += done.stdout
    return said


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
