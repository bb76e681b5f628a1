"""`portcullis keys import-devices`."""

from pathlib import Path

import click

from portcullis.cli.context import Context, common_options
from portcullis.cli.encryptors import encryptor
from portcullis.cli.progress import progress_bar
from portcullis.scheduler.imports import ImportResult, import_vendor_file


@click.command("import-devices")
@click.argument("vendor_file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@common_options
@click.pass_obj
def import_devices(context: Context, vendor_file: Path) -> None:
    """Import device keys: CSV `device_id,key_hex`, plain or encrypted to the import recipient.

    Interrupted, run it again: it goes on where it was. Lines that are refused are named, the
    others are taken; then the status is 1.
    """
    result = import_with_bar(context, vendor_file)
    state = result.state
    context.show(
        {
            "imported": state.imported,
            "already_there": state.present,
            "refused": state.refused,
            "lines": state.lines,
        }
    )
    if result.went_on_at:
        context.show({"went_on_behind_line": result.went_on_at})
    if result.lines_refused:
        rows = [
            {"line": one.line, "device_id": one.device_id, "reason": one.reason}
            for one in result.lines_refused
        ]
        context.show_rows(rows, ("line", "device_id", "reason"))
    if state.refused:
        raise SystemExit(1)


def import_with_bar(context: Context, vendor_file: Path) -> ImportResult:
    """Import a vendor's key file, with a progress bar."""
    size = vendor_file.stat().st_size
    with (
        encryptor(context) as client,
        context.database() as engine,
        progress_bar(context, "device keys", size, unit="bytes") as advance,
    ):
        done = 0

        def progress(read: int) -> None:
            nonlocal done
            advance(read - done)
            done = read

        return import_vendor_file(engine, client, vendor_file, progress)
