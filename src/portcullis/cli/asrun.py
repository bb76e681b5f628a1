"""`portcullis asrun`."""

from datetime import datetime
from pathlib import Path

import click

from portcullis.cli.context import Context, Instant, common_options, to_json
from portcullis.cycler.asrun import query
from portcullis.cycler.config import CyclerConfig


@click.command()
@click.option("--device", "device_id", type=int, help="Only this device.")
@click.option("--since", type=Instant(), help="From this time on.")
@click.option("--until", type=Instant(), help="Before this time.")
@common_options
@click.pass_obj
def asrun(
    context: Context, device_id: int | None, since: datetime | None, until: datetime | None
) -> None:
    """What was sent to the multiplexer, and when: the as-run log."""
    directory = Path(CyclerConfig.of(context.source()).asrun_dir)
    for record in query(directory, device_id, since, until):
        row = record._asdict()
        if context.as_json:
            click.echo(to_json(row))
        else:
            click.echo("  ".join(f"{name} {value}" for name, value in row.items()))
