"""`portcullis status`: services, queue and streams on one screen."""

import signal
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from types import FrameType
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from portcullis.cli.context import Context, common_options, short_time
from portcullis.cli.health import UnhealthyError, ask, monitors
from portcullis.store.figures import queue_figures
from portcullis.store.streams import StreamFigures, stream_figures

_COLOURS = {"ok": "green", "degraded": "yellow", "failed": "red", "silent": "red", "away": "dim"}


@click.command()
@click.option("--watch", is_flag=True, help="Show it anew, until Ctrl-C.")
@click.option(
    "--every", type=click.FloatRange(0.2), default=2.0, show_default=True, help="Seconds, --watch."
)
@common_options
@click.pass_obj
def status(context: Context, *, watch: bool, every: float) -> None:
    """Show every service, the queue and every stream. With --watch and --json: a line each time.

    Services are asked at their monitoring ports as configured; "away" is one that does not run
    here. Streams are as their cyclers have noted in the database, wherever they run.
    """
    screen = Console(file=sys.stdout, highlight=False)
    with context.database() as engine:
        if not watch:
            said = _read(context, engine)
            context.show(said) if context.as_json else screen.print(_screen(said))
            return
        stopping = threading.Event()

        def stop(_number: int, _frame: FrameType | None) -> None:
            stopping.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        if context.as_json:
            while not stopping.is_set():
                context.show(_read(context, engine))
                sys.stdout.flush()
                stopping.wait(every)
            return
        with Live(console=screen, screen=screen.is_terminal, auto_refresh=False) as live:
            while not stopping.is_set():
                live.update(_screen(_read(context, engine)), refresh=True)
                stopping.wait(every)


def _read(context: Context, engine: Engine) -> dict[str, Any]:
    addresses = monitors(context.source())
    with ThreadPoolExecutor(len(addresses)) as pool:
        services = dict(zip(addresses, pool.map(_service, addresses.items()), strict=True))
    said: dict[str, Any] = {"services": services}
    try:
        queue = queue_figures(engine)
        streams = stream_figures(engine)
    except SQLAlchemyError as error:
        return said | {"database": f"away: {type(error).__name__}", "queue": None, "streams": None}
    return said | {
        "database": "ok",
        "queue": asdict(queue),
        "streams": [_stream(one) for one in streams],
    }


def _service(named: tuple[str, str]) -> dict[str, Any]:
    name, monitor = named
    try:
        said = ask(monitor, f"{name}.monitor")
    except UnhealthyError as error:
        return {"monitor": monitor, "status": "silent", "reasons": {"monitor": str(error)}}
    if said is None:
        return {"monitor": monitor, "status": "away", "reasons": {}}
    reasons: dict[str, Any] = {}
    for kind in ("failed", "degraded"):
        why = said.get(kind)
        reasons |= why if isinstance(why, Mapping) else {}
    return {"monitor": monitor, "status": said["status"], "reasons": reasons}


def _stream(stream: StreamFigures) -> dict[str, Any]:
    return {
        "name": stream.name,
        "is_aired": stream.is_aired,
        "holder": stream.holder,
        "heard_until": stream.heard_until,
        "mux": stream.mux,
        "link": stream.link,
        "asked_kbit_s": stream.asked_kbit_s,
        "allocated_kbit_s": stream.allocated_kbit_s,
        "sent_kbit_s": stream.sent_kbit_s,
        "cycle_s": stream.cycle_s,
        "first_waiting": stream.first_waiting,
        "classes": [one._asdict() for one in stream.classes],
    }


def _screen(said: Mapping[str, Any]) -> RenderableType:
    parts: list[RenderableType] = [_services(said["services"])]
    if said["queue"] is None:
        parts.append(Text(f"database {said['database']}", "red"))
        return Group(*parts)
    queue = said["queue"]
    waiting = ", ".join(f"{count} for {cause}" for cause, count in queue["waiting"].items())
    line = f"queue: {waiting}; oldest order {queue['oldest_order_s']:.1f} s; failed devices: "
    failed = queue["failed"]
    parts.append(Text.assemble(line, (str(failed), "red" if failed else "")))
    parts += [_air(one) for one in said["streams"]]
    if not said["streams"]:
        parts.append(Text("no stream was ever aired", "yellow"))
    return Group(*parts)


def _services(services: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("service", "status", "at", "why")
    for name, one in services.items():
        state = Text(one["status"], _COLOURS[one["status"]])
        why = "; ".join(f"{what}: {reason}" for what, reason in one["reasons"].items())
        table.add_row(name, state, one["monitor"], Text(why))
    return table


def _air(stream: Mapping[str, Any]) -> Table:
    if stream["is_aired"]:
        title = (
            f"stream {stream['name']} → {stream['mux']} ({stream['link']}): "
            f"{_number(stream['sent_kbit_s'])} of {_number(stream['allocated_kbit_s'])} kbit/s, "
            f"{_number(stream['first_waiting'])} wait for their first airing"
        )
    else:
        title = f"stream {stream['name']}: NOT AIRED since {short_time(stream['heard_until'])}"
    style = "bold" if stream["is_aired"] else "bold red"
    table = Table(
        "class", "EMMs", "every", "stretch", title=Text(title, style), title_justify="left"
    )
    for one in stream["classes"]:
        stretch = Text(f"{one['stretch']:.2f}", "yellow" if one["stretch"] > 1.1 else "")  # noqa: PLR2004 (late by a tenth)
        table.add_row(one["name"], str(one["emms"]), f"{one['every_s']:g} s", stretch)
    return table


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)
