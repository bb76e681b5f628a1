"""The commands that have no module of their name."""

import json
from collections.abc import Callable

import click
import msgspec
from sqlalchemy import select

from portcullis.auditor.config import AuditorConfig
from portcullis.cli.agreement import check_ca_system_id
from portcullis.cli.context import Context, common_options
from portcullis.cli.devices import devices
from portcullis.cli.encryptors import KeysConfig
from portcullis.cli.plan import plan_command
from portcullis.cli.progress import progress_bar
from portcullis.cli.requests import requests
from portcullis.cycler.capacity import check_fits, full_cycle_s
from portcullis.cycler.config import CyclerConfig
from portcullis.emmg.config import EmmgConfig
from portcullis.encryptor.config import EncryptorConfig
from portcullis.gateway.config import GatewayConfig
from portcullis.mux.config import MuxConfig
from portcullis.runtime.config import ConfigSource, DatabaseConfig, LogConfig, Section
from portcullis.scheduler.config import SchedulerConfig
from portcullis.store import migrate as schema_migrations
from portcullis.store.schema import products as product_rows

SECTIONS: dict[str, Callable[[ConfigSource], Section]] = {
    "database": lambda source: source.section("database", DatabaseConfig),
    "log": lambda source: source.section("log", LogConfig),
    "gateway": GatewayConfig.of,
    "emmg": EmmgConfig.of,
    "encryptor": EncryptorConfig.of,
    "keys": KeysConfig.of,
    "cycler": CyclerConfig.of,
    "scheduler": SchedulerConfig.of,
    "mux": MuxConfig.of,
    "auditor": AuditorConfig.of,
}


@click.group()
def cli() -> None:
    """Whose commands `portcullis` has beside the rooms and those with a module of their name."""


cli.add_command(devices, "device")
cli.add_command(requests, "request")
cli.add_command(plan_command)


@cli.command()
@click.option("--before-roll-out", is_flag=True, help="Only what the release before can live with.")
@common_options
@click.pass_obj
def migrate(context: Context, *, before_roll_out: bool) -> None:
    """Bring the database to the schema of this release (docs/operations/upgrade.md)."""
    with context.database() as engine, progress_bar(context, "migrations", None) as advance:
        is_whole = schema_migrations.migrate(
            engine, before_roll_out=before_roll_out, progress=advance
        )
    context.show({"schema": "current" if is_whole else "ready for the roll-out"})


@cli.group()
def config() -> None:
    """Check the configuration, or show it as it is in force."""


def _sections(context: Context) -> dict[str, Section]:
    source = context.source()
    if unknown := source.data.keys() - SECTIONS.keys():
        raise source.unknown_section(min(unknown), SECTIONS)
    return {name: read(source) for name, read in SECTIONS.items()}


@config.command()
@click.option("--boxes", type=int, help="Population: do the classes fit the bandwidth?")
@click.option("--orders-per-s", type=float, default=0.0, show_default=True, help="Order rate.")
@common_options
@click.pass_obj
def check(context: Context, boxes: int | None, orders_per_s: float) -> None:
    """Read every section; exit 2 and name key, line and what is expected if one is wrong.

    With --boxes, also refuse classes of the carousel that the bandwidth cannot hold, and a
    scheduler.prepare_ahead that is too short to tell so many boxes of a new key.
    """
    _sections(context)
    if {"emmg", "cycler"} <= context.source().data.keys():
        check_ca_system_id(context.source())
    if boxes is not None:
        streams = CyclerConfig.of(context.source()).stream
        for stream in streams:
            check_fits(stream, boxes, orders_per_s)
        cycle_s = max(full_cycle_s(stream, boxes, orders_per_s) for stream in streams)
        SchedulerConfig.of(context.source()).check_lead(boxes, cycle_s)
    context.show({"configuration": "good"})


@config.command()
@common_options
@click.pass_obj
def show(context: Context) -> None:
    """Show every key as it is in force. Secrets are file names, so there is none to show."""
    shown = {
        name: msgspec.to_builtins(section, enc_hook=lambda duration: f"{float(duration):g}s")
        for name, section in _sections(context).items()
    }
    click.echo(json.dumps(shown, indent=1, default=str))


@cli.group()
def products() -> None:
    """The catalogue of products."""


@products.command("list")
@common_options
@click.pass_obj
def products_list(context: Context) -> None:
    """List the products. They are added through the API: PUT /products/{product_id}."""
    with context.database() as engine, engine.connect() as connection:
        rows = connection.execute(
            select(product_rows).order_by(product_rows.c.product_id)
        ).mappings()
        context.show_rows([dict(row) for row in rows], ("product_id", "name", "created_at"))
