"""What `portcullis device show` says, for people and for programs."""

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from portcullis.cli.context import short_time
from portcullis.gateway.answers import device_state, request_state
from portcullis.gateway.permits import Permit
from portcullis.store.lives import DeviceLife


def as_fields(life: DeviceLife) -> Mapping[str, Any]:
    """Everything, as JSON has it."""
    state: dict[str, Any] = msgspec.to_builtins(device_state(life.device_id, life.state, Permit()))
    for held in state["entitlements"]:
        held["name"] = life.products.get(held["product_id"])
    work = life.work
    return state | {
        "sealing": None
        if work is None
        else {
            "due_at": work.due_at,
            "tries": work.tries,
            "failed_at": work.failed_at,
            "last_error": work.last_error,
        },
        "next_airings": [
            {"stream": one.stream, "class": one.airing_class, "by": one.by}
            for one in life.next_airings
        ],
        "requests": [
            {"client_id": record.client_id} | msgspec.to_builtins(request_state(record))
            for record in life.requests
        ],
    }


def show_life(life: DeviceLife) -> None:
    """Everything, on one screen."""
    state, work = life.state, life.work
    screen = Console(file=sys.stdout, highlight=False)
    screen.print(
        f"device {life.device_id}: {'active' if state.active else 'removed'}, number"
        f" {state.number}, last aired first {short_time(state.last_aired_at)}",
        style="bold",
        markup=False,
    )
    if work is not None and work.failed_at is not None:
        screen.print(f"given up after {work.tries} tries: {work.last_error}", style="red")
    elif work is not None and work.due_at is not None:
        waits = f" after {work.tries} tries: {work.last_error}" if work.last_error else ""
        screen.print(f"waits to be sealed{waits}", style="yellow", markup=False)
    for one in life.next_airings:
        screen.print(
            f"next on {one.stream}: class {one.airing_class}, by {short_time(one.by)}", markup=False
        )
    held = Table("product", "name", "from", "until", title="should hold", title_justify="left")
    for row in state.entitlements:
        name = life.products.get(row.product_id, "")
        until = "open" if row.ends_at is None else short_time(row.ends_at)
        held.add_row(str(row.product_id), name, short_time(row.starts_at), until)
    screen.print(held)
    for message in state.messages:
        shown = f"message {message.message_id} until {short_time(message.expires_at)}: "
        screen.print(shown + message.text, markup=False)
    screen.print(_requests(life))


def _requests(life: DeviceLife) -> Table:
    columns = ("request", "call", "status", "accepted", "encrypted", "on air")
    table = Table(*columns, title="requests", title_justify="left")
    for record in life.requests:
        state = request_state(record)
        steps = [state.accepted_at, state.encrypted_at, state.on_air_at]
        status = state.code or state.error or state.status
        table.add_row(state.request_id, state.kind, status, *_times(steps))
    return table


def _times(steps: list[datetime | None]) -> list[str]:
    return [short_time(moment) for moment in steps]
