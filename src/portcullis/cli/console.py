"""`portcullis console …`: who may sign in to the gateway's console."""

from pathlib import Path

import click

from portcullis.cli.context import Context, common_options
from portcullis.gateway.config import GatewayConfig
from portcullis.gateway.console.people import MAX_NAME_CHARS, People, Role
from portcullis.store.chains import note_key_event


@click.group()
def console() -> None:
    """People of the console at /console: the gateway's own sign-in."""


def _people(context: Context) -> People:
    return People(Path(GatewayConfig.of(context.source()).oauth_dir))


@console.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "help-desk"]), required=True)
@common_options
@click.pass_obj
def console_add(context: Context, name: str, role: Role) -> None:
    """Add a person, or give one a new password and role. The password is shown now, never again.

    A viewer sees everything; the help desk may also have a box sent everything again.
    """
    if not (1 <= len(name) <= MAX_NAME_CHARS and name.isprintable() and name == name.strip()):
        raise click.BadParameter(f"expected 1 to {MAX_NAME_CHARS} printable characters")
    with context.database() as engine:  # a password that is not noted is never told
        password = _people(context).add(name, role)
        note_key_event(engine, "console_person_added", name=name, role=role)
    context.show({"name": name, "role": role, "password": password})


@console.command("list")
@common_options
@click.pass_obj
def console_list(context: Context) -> None:
    """List the people with their roles."""
    rows = [{"name": name, "role": one.role} for name, one in _people(context).all().items()]
    context.show_rows(rows, ("name", "role"))


@console.command("remove")
@click.argument("name")
@common_options
@click.pass_obj
def console_remove(context: Context, name: str) -> None:
    """Remove a person; their sessions end at once."""
    with context.database() as engine:
        if not _people(context).remove(name):
            raise click.ClickException(f"there is nobody called {name}")
        note_key_event(engine, "console_person_removed", name=name)
    context.show({"removed": name})
