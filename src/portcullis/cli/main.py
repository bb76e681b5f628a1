"""`portcullis`: finds the command; here alone an error becomes a line and a status."""

import importlib
import sys

import click

from portcullis.cli.context import Context
from portcullis.cli.services import ROOMS, room_command
from portcullis.runtime.errors import PortcullisError
from portcullis.runtime.memory import loading_modules

_MODULES = (
    *("asrun", "audit", "ca", "clients", "completion", "console", "db", "devices", "emm"),
    *("health", "keys", "requests", "status", "up"),
)
"""Commands that are alone in a module of their name."""


class _Commands(click.Group):
    """A command is found without loading what others need: that costs time, and rooms memory."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command."""
        return sorted([*ROOMS, *_MODULES, *self._others().list_commands(ctx)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if cmd_name in ROOMS:
            return room_command(cmd_name)
        if cmd_name in _MODULES:
            with loading_modules():
                module = importlib.import_module(f"portcullis.cli.{cmd_name}")
            command: click.Command = getattr(module, cmd_name)
            return command
        return self._others().get_command(ctx, cmd_name)

    def _others(self) -> click.Group:
        group: click.Group = importlib.import_module("portcullis.cli.commands").cli
        return group


@click.group(cls=_Commands, context_settings={"obj": None})
@click.version_option(package_name="portcullis-cas", prog_name="portcullis")
@click.pass_context
def cli(context: click.Context) -> None:
    """An open conditional-access head-end."""
    context.ensure_object(Context)


def main() -> None:
    """Run a command; an error of the family is one line on standard error and its status."""
    try:
        cli(standalone_mode=True)
    except PortcullisError as error:
        click.echo(f"portcullis: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        database = sys.modules.get("sqlalchemy.exc")  # not there: no command has used a database
        if database is None or not isinstance(error, database.DBAPIError):
            raise
        click.echo(f"portcullis: the database refused: {error.orig}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
