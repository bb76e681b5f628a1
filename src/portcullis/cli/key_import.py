"""`portcullis keys import-devices`."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from portcullis.cli.context import Context, common_options
from portcullis.emmg.config import EmmgConfig
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.store.keyfile import parse_vendor_key_file
from portcullis.store.keys import insert_device_keys

_CHUNK = 1000


@click.command("import-devices")
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
