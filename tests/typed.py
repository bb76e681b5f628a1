"""What a page has its reader type: taken apart, and held against the programs there are."""

import shlex
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import click

from portcullis.cli.main import cli


def stages(line: str) -> Iterator[list[str]]:
    """The commands of a pipeline, as lists of words; a remark at the end is none."""
    words = shlex.shlex(line, posix=True, punctuation_chars="|<>")
    words.whitespace_split = True
    stage: list[str] = []
    for word in words:
        if word == "|":
            yield stage
            stage = []
        else:
            stage.append(word)
    yield stage


def check_portcullis(words: list[str]) -> None:
    """The command exists, with these options and arguments; raises click.UsageError."""
    command: Any = cli
    while isinstance(command, click.Group):
        assert words, "a group is no command"
        name = words.pop(0)
        command = command.get_command(click.Context(command), name)
        assert command is not None, f"there is no command {name}"
    # In a sentence a command may be named without the file it takes.
    with suppress(click.MissingParameter):
        command.make_context("portcullis", words)
