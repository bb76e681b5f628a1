"""`portcullis audit …`: is the record as it was written, and what does it say."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import click

from portcullis.auditor.auditor import PUBLIC_KEY
from portcullis.auditor.chainlog import Keeping
from portcullis.auditor.comparison import DatabaseView
from portcullis.auditor.config import AuditorConfig
from portcullis.auditor.export import FORMATS, Proven, Selection, select, verify_export
from portcullis.auditor.heads import key_id, load_public, public_pem
from portcullis.auditor.keychange import change_key
from portcullis.auditor.reconcile import Tally, read_sms_file, reconcile
from portcullis.auditor.report import Report
from portcullis.auditor.verify import Anchors, Verifier, chains_in
from portcullis.cli.context import Context, Instant, common_options
from portcullis.cli.progress import counted, progress_bar
from portcullis.gateway.config import GatewayConfig
from portcullis.gateway.permits import Permit
from portcullis.runtime.config import ConfigError
from portcullis.scheduler.config import SchedulerConfig
from portcullis.store.rights import active_rights

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def audit() -> None:
    """The record of requests and key changes: verify, export, compare with the SMS."""


def _state_dir(command: _F) -> _F:
    """`--state-dir DIR`: the configuration that `portcullis up` wrote there."""

    def take(context: click.Context, _: click.Parameter, value: Path | None) -> None:
        if value is not None:
            found = context.ensure_object(Context)
            found.config, found.state_dir = value / "portcullis.toml", value

    return click.option(
        "--state-dir",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        expose_value=False,
        callback=take,
        help="Of `portcullis up`, instead of --config.",
    )(command)


_public_key = click.option(
    "--public-key", type=_FILE, help="The auditor's public key, as it was taken off its host."
)


def _auditor(context: Context) -> AuditorConfig:
    """`[auditor]`; what `portcullis up` takes where the configuration says nothing of it."""
    source = context.source()
    if context.state_dir is not None and "auditor" not in source.data:
        return AuditorConfig(
            dir=str(context.state_dir / "audit"),
            key_file=str(context.state_dir / "keys" / "audit-signing-key.pem"),
        )
    return AuditorConfig.of(source)


def _root(config: AuditorConfig) -> Path:
    root = Path(config.dir)
    if not (root / PUBLIC_KEY).exists():
        raise ConfigError(f"auditor.dir: {root}: no auditor has kept a record there")
    return root


@audit.command()
@click.option(
    "--anchors",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="A file drop or a syslog file with anchored heads; also the configured file drops.",
)
@click.option("--no-database", is_flag=True, help="Do not compare with the database.")
@_public_key
@_state_dir
@common_options
@click.pass_obj
def verify(
    context: Context, anchors: tuple[Path, ...], public_key: Path | None, *, no_database: bool
) -> None:
    """Find every edit, deletion, cut tail and fork, and say where; status 1 if there is one."""
    source = context.source()
    config, now = _auditor(context), datetime.now(UTC)
    root = _root(config)
    drops = [Path(text.partition(":")[2]) for text in config.anchors if text.startswith("dir:")]
    read = Anchors.read([*anchors, *(drop for drop in drops if drop.is_dir())])
    report = Report()
    key = load_public(public_key or root / PUBLIC_KEY)
    with context.database() as engine, progress_bar(context, "lines", None) as advance:
        database = None
        if not no_database:
            keep = SchedulerConfig.of(source).requests_keep.delta
            database = DatabaseView(engine, report, keep, now)
        Verifier(
            root,
            key,
            read,
            report,
            database=database,
            keep=config.keep.delta,
            now=now,
            progress=advance,
        ).run()
    _show(context, report)


def _show(context: Context, report: Report) -> None:
    if report.findings:
        context.show_rows([asdict(finding) for finding in report.findings], ("where", "what"))
    for note in report.notes:
        click.echo(f"note: {note}", err=True)
    context.show(
        {
            "verdict": f"{len(report.findings)} findings"
            if report.findings
            else "as it was written",
            "records": report.records,
            "heads": report.heads,
            "chains": " ".join(report.chains),
        }
    )
    if report.findings:
        sys.exit(1)


@audit.command()
@click.option("--since", type=Instant(), help="From this time on.")
@click.option("--until", type=Instant(), help="Before this time.")
@click.option("--device", "device_id", type=int, help="Only this device.")
@click.option("--product", "product_id", type=int, help="Only this product.")
@click.option("--format", "format_", type=click.Choice(sorted(FORMATS)), default="json")
@click.option("--output", type=click.File("w", encoding="utf-8", lazy=False), default="-")
@_state_dir
@common_options
@click.pass_obj
def export(
    context: Context,
    *,
    since: datetime | None,
    until: datetime | None,
    device_id: int | None,
    product_id: int | None,
    format_: str,
    output: Any,  # noqa: ANN401 (click's file)
) -> None:
    """Write the records asked for, each with the proof that it is in the signed log.

    What was committed in the last seconds is not signed yet, and left out.
    """
    root = _root(_auditor(context))
    wanted = Selection(since, until, device_id, product_id)

    def found() -> Iterator[Proven]:
        return chain.from_iterable(select(root, name, wanted) for name in sorted(chains_in(root)))

    if output.name == sys.stdout.name:  # no bar among the records
        count = FORMATS[format_](found(), output)
    else:
        with progress_bar(context, "records", None) as advance:
            count = FORMATS[format_](counted(found(), advance), output)
    click.echo(f"records: {count}", err=True)


@audit.command("verify-export")
@click.argument("file", type=_FILE)
@click.option(
    "--public-key",
    "public_keys",
    type=_FILE,
    required=True,
    multiple=True,
    help="The auditor's public key; once for each, if it was changed within the export.",
)
@common_options
@click.pass_obj
def verify_exported(context: Context, file: Path, public_keys: tuple[Path, ...]) -> None:
    """Verify an export without the head-end: with the file and the public key alone."""
    count, wrong = 0, []
    judged = verify_export(file, [load_public(one) for one in public_keys])
    with progress_bar(context, "records", None) as advance:
        for where, what in counted(judged, advance):
            count += 1
            if what is not None:
                wrong.append({"where": where, "what": what})
    if wrong:
        context.show_rows(wrong, ("where", "what"))
    context.show({"records": count, "wrong": len(wrong)})
    if wrong:
        sys.exit(1)


@audit.command()
@_state_dir
@common_options
@click.pass_obj
def key(context: Context) -> None:
    """Show the auditor's public key. Keep a copy where this host cannot change it."""
    path = _root(_auditor(context)) / PUBLIC_KEY
    pem = path.read_text(encoding="ascii")
    context.show({"key_id": key_id(load_public(path)), "file": path, "public_key": pem.strip()})


@audit.command("rotate-key")
@_state_dir
@common_options
@click.pass_obj
def rotate_key(context: Context) -> None:
    """Change the key that signs the record; stop the auditor before, and start it again.

    The old key signs the new one in and is gone then. Take the new public key off this host.
    Interrupted, run it again.
    """
    config = _auditor(context)
    root = _root(config)
    keeping = Keeping(config.file_bytes, float(config.keep))
    new = change_key(root, Path(config.key_file), keeping, datetime.now(UTC))
    pem = public_pem(new.public).decode()
    context.show({"key_id": key_id(new.public), "public_key": pem.strip()})


@audit.command("reconcile")
@click.option(
    "--sms", "sms_file", type=_FILE, required=True, help="CSV or JSON (docs/evidence.md)."
)
@click.option("--client", "client_id", help="Only the devices and products of this client.")
@_state_dir
@common_options
@click.pass_obj
def reconcile_command(context: Context, sms_file: Path, client_id: str | None) -> None:
    """Compare the SMS's active devices and products with ours; status 1 if they differ."""
    permit = Permit()
    if client_id is not None:
        permit = GatewayConfig.of(context.source()).permits.of(client_id)
    tally = Tally()
    sms = read_sms_file(sms_file)
    with context.database() as engine, progress_bar(context, "devices", len(sms)) as advance:
        ours = (
            (device_id, tuple(one for one in held if permit.allows_product(one)))
            for device_id, held in active_rights(engine)
            if permit.allows_device(device_id)
        )
        rows = [asdict(one) for one in reconcile(sms, counted(ours, advance), tally)]
    if rows:
        context.show_rows(rows, ("device_id", "product_id", "only_in"))
    context.show(
        {
            "devices": tally.devices,
            "mismatched": tally.mismatched,
            "mismatch_rate": round(tally.rate, 6),
        }
    )
    if tally.mismatched:
        sys.exit(1)
