"""`portcullis device …`: what an operator asks of, and does to, single boxes."""

from uuid import uuid4

import click

from portcullis.cli.context import Context, common_options
from portcullis.cli.device_life import as_fields, show_life
from portcullis.cli.encryptors import encryptor
from portcullis.gateway.orders import rehit_order
from portcullis.scheduler.blacklist import blacklist
from portcullis.scheduler.config import SchedulerConfig
from portcullis.store.blacklist import set_blacklisted
from portcullis.store.chains import actor
from portcullis.store.lives import device_life
from portcullis.store.orders import Refused, apply_requests


@click.group()
def devices() -> None:
    """Single boxes. They are added and removed by the SMS, through the API."""


_DEVICE = click.IntRange(1, 2**40 - 1)
_LATEST = 10
_CLIENT = "portcullis device rehit"


@devices.command()
@click.argument("device_id", type=_DEVICE)
@click.option(
    "--requests",
    "latest",
    type=click.IntRange(0, 1000),
    default=_LATEST,
    show_default=True,
    help="How many of its latest requests to show.",
)
@common_options
@click.pass_obj
def show(context: Context, device_id: int, latest: int) -> None:
    """Show what a box should hold now, when it is told next, and the life of its requests."""
    with context.database() as engine:
        life = device_life(engine, device_id, latest)
    if life is None:
        raise click.ClickException(f"device {device_id} was never added")
    if context.as_json:
        context.show(as_fields(life))
    else:
        show_life(life)


@devices.command()
@click.argument("device_id", type=_DEVICE)
@common_options
@click.pass_obj
def rehit(context: Context, device_id: int) -> None:
    """Send again now all that a box is to hold, its messages too.

    It is an order like any other, with its place in the record of evidence; who ran the command
    stands in it.
    """
    by = actor()
    with context.database() as engine:
        (result,) = apply_requests(
            engine, [rehit_order(_CLIENT, device_id, by, uuid4().hex)], writer="operator"
        )
    if isinstance(result, Refused):
        raise click.ClickException(result.detail)
    context.show({"request_id": result.request_id, "accepted_at": result.accepted_at, "by": by})


@devices.command("blacklist")
@click.argument("device_id", type=_DEVICE)
@click.option("--lift", is_flag=True, help="Let it be added again.")
@common_options
@click.pass_obj
def blacklist_device(context: Context, device_id: int, *, lift: bool) -> None:
    """Shut a box out: its rights end, it cannot be added again, and its keys become worthless.

    New key chains are started for every product that it can open; once all other boxes have
    them, it opens nothing, whether it obeys or not. Interrupted, run it again.
    """
    with context.database() as engine:
        if lift:
            set_blacklisted(engine, device_id, is_blacklisted=False)
            context.show({"device_id": device_id, "blacklisted": False})
            return
        epochs = SchedulerConfig.of(context.source()).chain_epochs
        with encryptor(context) as client:
            products = blacklist(engine, client, device_id, epochs)
    context.show({"device_id": device_id, "blacklisted": True, "new_chains_of": products})
