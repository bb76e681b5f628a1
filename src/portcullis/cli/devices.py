"""`portcullis devices …`: what an operator does to single boxes."""

import click

from portcullis.cli.context import Context, common_options
from portcullis.cli.encryptors import encryptor
from portcullis.scheduler.blacklist import blacklist
from portcullis.scheduler.config import SchedulerConfig
from portcullis.store.blacklist import set_blacklisted


@click.group()
def devices() -> None:
    """Single boxes. They are added and removed by the SMS, through the API."""


@devices.command("blacklist")
@click.argument("device_id", type=click.IntRange(1, 2**40 - 1))
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
