"""`portcullis requests …`: the life of an order, and devices whose orders could not be sealed."""

from pathlib import Path

import click
import msgspec
from sqlalchemy import Engine

from portcullis.cli.context import Context, common_options
from portcullis.cli.progress import progress_bar
from portcullis.gateway.answers import request_state
from portcullis.scheduler.archive import Archive
from portcullis.scheduler.config import SchedulerConfig
from portcullis.store.database import chunked
from portcullis.store.failures import failed_devices, retry_failed, work_of
from portcullis.store.reads import (
    RequestRecord,
    clients_with,
    request_by_id,
    request_by_transaction,
)

_CHUNK = 500
_FAILED_COLUMNS = ("device_id", "failed_at", "tries", "last_error")


@click.group()
def requests() -> None:
    """Orders of the SMS: where one is, and those that could not be sealed."""


@requests.command()
@click.argument("request_id", required=False)
@click.option("--transaction-id", help="The SMS's own number of the request.")
@click.option("--client", "client_id", help="Of this client only; found faster.")
@common_options
@click.pass_obj
def show(
    context: Context, request_id: str | None, transaction_id: str | None, client_id: str | None
) -> None:
    """Show the life of a request, by REQUEST_ID or by --transaction-id.

    One that the database has no more is looked for in scheduler.archive_dir: by REQUEST_ID in
    the file of its month, by --transaction-id in all of them.
    """
    if (request_id is None) == (transaction_id is None):
        raise click.UsageError("expected either REQUEST_ID or --transaction-id")
    with context.database() as engine:
        if transaction_id is None:
            found = [request_by_id(engine, client_id, request_id or "")]
        else:
            clients = clients_with(engine, transaction_id) if client_id is None else [client_id]
            found = [request_by_transaction(engine, one, transaction_id) for one in clients]
        shown = [_life(engine, record) for record in found if record is not None]
    shown = shown or _archived(context, request_id, transaction_id, client_id)
    for place, one in enumerate(shown):
        if place and not context.as_json:
            click.echo()
        context.show(one)


def _archived(
    context: Context, request_id: str | None, transaction_id: str | None, client_id: str | None
) -> list[dict[str, object]]:
    """The request as the archive has it; raises ClickException where it has not."""
    directory = context.source().section("scheduler", SchedulerConfig).archive_dir
    if directory is None:
        raise click.ClickException(
            "no such request in the database; this configuration names no scheduler.archive_dir,"
            " where requests go after scheduler.requests_keep"
        )
    given = {
        "request_id": request_id,
        "transaction_id": transaction_id,
        "client_id": client_id,
    }
    wanted = {name: value for name, value in given.items() if value is not None}
    archive = Archive(Path(directory))
    with progress_bar(context, "months", len(archive.entries())) as advance:
        found = list(archive.find(wanted, advance))
    if not found:
        raise click.ClickException(f"no such request, neither in the database nor in {directory}")
    return found


def _life(engine: Engine, record: RequestRecord) -> dict[str, object]:
    """What is known of a request, in the order in which it came about."""
    state = request_state(record)
    life: dict[str, object] = {"client_id": record.client_id}
    life |= msgspec.structs.asdict(state)
    life["order"] = record.body
    if state.status in ("accepted", "failed") and record.device_id is not None:
        work = work_of(engine, record.device_id)
        if work is not None:
            life |= {"tries": work.tries, "next_try_at": work.due_at, "error": work.last_error}
    return {name: value for name, value in life.items() if value is not None}


@requests.command()
@common_options
@click.pass_obj
def failed(context: Context) -> None:
    """List the devices given up: nothing is done for them until an order or a retry."""
    with context.database() as engine:
        context.show_rows([dict(row) for row in failed_devices(engine)], _FAILED_COLUMNS)


@requests.command()
@click.option("--device", "device_ids", type=int, multiple=True, help="A device; may be repeated.")
@click.option("--all-failed", is_flag=True, help="Every device that was given up.")
@common_options
@click.pass_obj
def retry(context: Context, device_ids: tuple[int, ...], *, all_failed: bool) -> None:
    """Have devices that were given up sealed anew, once the reason is put right."""
    if bool(device_ids) == all_failed:
        raise click.UsageError("expected either --device or --all-failed")
    with context.database() as engine:
        chosen = [row["device_id"] for row in failed_devices(engine)] if all_failed else device_ids
        retried: list[int] = []
        with progress_bar(context, "devices", len(chosen)) as advance:
            for chunk in chunked(chosen, _CHUNK):
                retried += retry_failed(engine, chunk)
                advance(len(chunk))
    context.show({"retried": len(retried)})
    if missing := sorted(set(device_ids) - set(retried)):
        raise click.ClickException(f"not given up: {', '.join(map(str, missing))}")
