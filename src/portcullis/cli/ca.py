"""`portcullis ca …`: certificates for development and for trying things out."""

from datetime import timedelta
from pathlib import Path

import click

from portcullis.cli.context import Context, common_options
from portcullis.runtime.devca import init_ca, issue

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var/tls"),
    show_default=True,
    help="Where the CA is, and where certificates are put.",
)


@click.group()
def ca() -> None:
    """A development CA for mutual TLS. In production, take certificates from your own."""


@ca.command("init")
@_directory
@common_options
@click.pass_obj
def ca_init(context: Context, directory: Path) -> None:
    """Make the CA: ca.pem and ca.key."""
    context.show({"ca_file": init_ca(directory)})


@ca.command("issue")
@click.argument("name")
@click.option("--host", "hosts", multiple=True, help="Name or address that it listens on.")
@click.option("--days", default=90, show_default=True, help="How long it is valid.")
@_directory
@common_options
@click.pass_obj
def ca_issue(
    context: Context, name: str, hosts: tuple[str, ...], days: int, directory: Path
) -> None:
    """Issue NAME.pem and NAME.key; again, it replaces them, and services take them up."""
    certificate = issue(directory, name, hosts, timedelta(days=days))
    context.show({"cert_file": certificate, "key_file": certificate.with_suffix(".key")})
