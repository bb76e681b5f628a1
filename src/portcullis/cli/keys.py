"""`portcullis keys …`: the master key, device keys, product key chains."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import func, select

from portcullis.cli.context import Context, common_options
from portcullis.emmg.config import EmmgConfig
from portcullis.encryptor.config import EncryptorConfig
from portcullis.encryptor.masterkey import init_master_key
from portcullis.runtime.config import ConfigSource
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.scheduler.chains import rotate_now
from portcullis.scheduler.config import SchedulerConfig
from portcullis.store.keyfile import parse_vendor_key_file
from portcullis.store.keys import insert_device_keys
from portcullis.store.schema import keys as key_rows

_CHUNK = 1000


@click.group()
def keys() -> None:
    """The master key, device keys and product key chains."""


def init_master(source: ConfigSource) -> bool:
    """Make the master key where there is none; returns whether one was made."""
    config = source.section("encryptor", EncryptorConfig)
    if Path(config.master_key_file).exists():
        return False
    init_master_key(config, f"{datetime.now(UTC):%Y%m%dT%H%M%S}")
    return True


@keys.command()
@common_options
@click.pass_obj
def init(context: Context) -> None:
    """Make the master key, mode 0600. Keep a copy off this machine: without it nothing opens."""
    made = init_master(context.source())
    context.show({"master_key": "made" if made else "was there already; left as it is"})


@keys.command("import-devices")
@click.argument("vendor_file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@common_options
@click.pass_obj
def import_devices(context: Context, vendor_file: Path) -> None:
    """Import device keys: CSV `device_id,key_hex`. Keys that are there are left as they are."""
    imported, present = import_file(context, vendor_file)
    context.show({"imported": imported, "already_there": present})


def import_file(context: Context, vendor_file: Path) -> tuple[int, int]:
    """Import a vendor's key file; returns how many were new, and how many were there."""
    encryptor = context.source().section("emmg", EmmgConfig).encryptor
    imported = present = 0
    with (
        vendor_file.open(encoding="utf-8") as lines,
        EncryptorClient(encryptor) as client,
        context.database() as engine,
        Progress(console=Console(stderr=True), transient=True, disable=context.as_json) as progress,
    ):
        task = progress.add_task("device keys", total=None)
        parsed = iter(parse_vendor_key_file(lines))
        while chunk := _take(parsed):
            new = insert_device_keys(engine, client.import_device_keys(chunk))
            imported += new
            present += len(chunk) - new
            progress.update(task, completed=imported + present)
    return imported, present


def _take(parsed: Iterator[tuple[int, bytes]]) -> Sequence[tuple[int, bytes]]:
    return list(islice(parsed, _CHUNK))


@keys.command("list")
@common_options
@click.pass_obj
def list_keys(context: Context) -> None:
    """List product key chains and the number of device keys. No key is ever shown."""
    with context.database() as engine, engine.connect() as connection:
        rows = connection.execute(
            select(key_rows)
            .where(key_rows.c.purpose == "product")
            .order_by(key_rows.c.owner, key_rows.c.first_epoch)
        ).mappings()
        columns = (
            "product_id",
            "first_epoch",
            "last_epoch",
            "live_epoch",
            "seal_epoch",
            "switch_at",
            "retired_at",
            "master_id",
        )
        shown = [{"product_id": row["owner"]} | {n: row[n] for n in columns[1:]} for row in rows]
        count = connection.execute(
            select(func.count()).select_from(key_rows).where(key_rows.c.purpose == "device")
        ).scalar_one()
    context.show_rows(shown, columns)
    context.show({"device_keys": count})


@keys.command()
@click.option("--product", "product_id", type=int, required=True, help="The product.")
@click.option("--now", is_flag=True, required=True, help="Do not wait for its time.")
@common_options
@click.pass_obj
def rotate(context: Context, product_id: int, *, now: bool) -> None:
    """Start a new key chain of a product, after a compromise or a blacklisting.

    Boxes are given both keys until the new one goes live, `scheduler.prepare_ahead` from now.
    """
    del now  # asked for so that nobody does this by accident
    config = SchedulerConfig.of(context.source())
    with context.database() as engine, EncryptorClient(config.encryptor) as client:
        try:
            live_at = rotate_now(
                engine, client, product_id, config.chain_epochs, config.prepare_ahead.delta
            )
        except LookupError as error:
            raise click.BadParameter(str(error)) from error
    context.show({"product_id": product_id, "live_at": live_at})
