"""`portcullis clients …`: API clients of the built-in token endpoint."""

from collections.abc import Collection
from pathlib import Path

import click

from portcullis.cli.context import Context, common_options
from portcullis.gateway.clients import NewClient, add_client, list_clients
from portcullis.gateway.config import GatewayConfig
from portcullis.runtime.oauth import SCOPES, ClientRegister
from portcullis.store.chains import note_key_event, record_key_event
from portcullis.store.database import writing


def register(context: Context, name: str, scopes: Collection[str] = SCOPES) -> NewClient:
    """Register a client, and note it: a secret that is not noted is never told."""
    with context.database() as engine, writing(engine) as connection:
        client = add_client(GatewayConfig.of(context.source()), name, scopes)
        record_key_event(
            connection,
            "client_registered",
            client_id=client.client_id,
            name=name,
            scopes=" ".join(sorted(scopes)),
        )
    return client


@click.group()
def clients() -> None:
    """API clients of the built-in token endpoint."""


@clients.command("add")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(sorted(SCOPES)), required=True)
@common_options
@click.pass_obj
def clients_add(context: Context, name: str, scopes: tuple[str, ...]) -> None:
    """Add a client. Its secret is shown now and never again."""
    client = register(context, name, scopes)
    context.show({"client_id": client.client_id, "client_secret": client.client_secret})


@clients.command("list")
@common_options
@click.pass_obj
def clients_list(context: Context) -> None:
    """List the clients with their scopes."""
    rows = list_clients(GatewayConfig.of(context.source()))
    context.show_rows(rows, ("client_id", "name", "scopes"))


@clients.command("remove")
@click.argument("client_id")
@common_options
@click.pass_obj
def clients_remove(context: Context, client_id: str) -> None:
    """Remove a client. Tokens that it holds end by themselves."""
    register_file = ClientRegister(Path(GatewayConfig.of(context.source()).oauth_dir))
    if client_id not in register_file.all():
        raise click.BadParameter(f"no client {client_id}")
    with context.database() as engine:
        note_key_event(engine, "client_removed", client_id=client_id)
    register_file.remove(client_id)
    context.show({"removed": client_id})
