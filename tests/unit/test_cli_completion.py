"""Shell completion, in a real bash."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from portcullis.cli.main import cli

BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("portcullis", "enc"), {"encryptor"}),
        (("portcullis", "device", ""), {"blacklist", "rehit", "show"}),
        (("portcullis", "completion", "f"), {"fish"}),
        (("portcullis", "status", "--w"), {"--watch"}),
    ],
)
def test_bash_completes_commands_options_and_values(
    words: tuple[str, ...], expected: set[str]
) -> None:
    source = CliRunner().invoke(cli, ["completion", "bash"]).stdout
    script = source + (
        f"\nCOMP_WORDS=({' '.join(word or repr('') for word in words)})\n"
        f"COMP_CWORD={len(words) - 1}\n"
        '_portcullis_completion portcullis\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize(("shell", "sign"), [("zsh", "#compdef portcullis"), ("fish", "complete ")])
def test_the_other_shells_have_theirs(shell: str, sign: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell, "--json"])
    said = json.loads(done.stdout)
    assert said["shell"] == shell
    assert sign in said["source"]
    assert "_PORTCULLIS_COMPLETE" in said["source"]


def commands(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, by its words."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from commands(found, *path, name)


def test_every_command_takes_its_configuration_and_answers_in_json() -> None:
    options = {path: {one for p in c.params for one in p.opts} for path, c in commands(cli)}
    assert ("device", "rehit") in options
    assert [path for path, has in options.items() if not {"--config", "--json"} <= has] == []
