"""The rooms as commands, and what `portcullis up` runs."""

import importlib
from typing import Any

import click

from portcullis.cli.context import Context, common_options
from portcullis.runtime.config import LogConfig
from portcullis.runtime.logging import set_up_logging
from portcullis.runtime.memory import loading_modules
from portcullis.runtime.service import run

ROOMS = {
    "gateway": "The SMS-CAS interface: REST in, orders in the database.",
    "emmg": "The EMM generator: orders in, sealed EMMs in the database.",
    "encryptor": "The only process that holds keys: envelope encryption over RPC.",
    "cycler": "The carousel: sealed EMMs to the multiplexer, for ever.",
    "scheduler": "Rotates keys, re-seals, purges.",
    "mux": "A multiplexer for those without one.",
    "auditor": "Keeps the hash-chained record of requests and key changes.",
}
"""Every room, in no order of starting: `cli.up` has that."""


def room_command(name: str) -> click.Command:
    """The command that runs a room."""

    @click.pass_obj
    def start(context: Context) -> None:
        source = context.source()
        set_up_logging(name, source.section("log", LogConfig))
        # Each room only where it is run: no process loads what another room needs.
        with loading_modules():
            room: Any = importlib.import_module(f"portcullis.{name}.main")
        run(lambda: room.main(source))

    return click.command(name, help=ROOMS[name])(common_options(start))
