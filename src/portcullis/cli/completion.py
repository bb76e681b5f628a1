"""`portcullis completion`: what a shell needs to complete commands, options and their values."""

import click
from click.shell_completion import get_completion_class

from portcullis.cli.context import Context, common_options

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@common_options
@click.pass_context
def completion(click_context: click.Context, shell: str) -> None:
    """Print the completion of a shell, for it to read (docs/operations/status.md)."""
    of_the_shell = get_completion_class(shell)
    assert of_the_shell is not None  # noqa: S101 (one of click's own)
    root = click_context.find_root()
    source = of_the_shell(root.command, {}, "portcullis", "_PORTCULLIS_COMPLETE").source()
    context = click_context.find_object(Context)
    if context is not None and context.as_json:
        context.show({"shell": shell, "source": source})
    else:
        click.echo(source)
