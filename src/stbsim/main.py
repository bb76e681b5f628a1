"""The command line: `stbsim watch` and `stbsim report`."""

import json
import signal
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import click

from dvbwire.ts import PacketSync
from stbsim.devices import read_devices
from stbsim.errors import InputError
from stbsim.events import Event
from stbsim.output import event_json, event_line, report
from stbsim.receiver import Receiver
from stbsim.sources import Source, UdpSource, open_source

_EXIT_BAD_INPUT = 2

_DEVICES = click.option(
    "--devices",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='JSON: [{"device_id": "1001", "device_key": "hex"}]',
)


def _instant(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Read RFC 3339 with an offset as seconds since 1970."""
    if value is None:
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not an RFC 3339 time") from None
    if instant.tzinfo is None:
        raise click.BadParameter(f"{value!r} lacks an offset such as Z")
    return int(instant.timestamp())


@click.group()
@click.version_option(package_name="portcullis-cas", prog_name="stbsim")
def main() -> None:
    """Virtual set-top boxes that watch a transport stream.

    URL is udp://host:port, file:PATH or - for standard input. Boxes know no time but the stream's.
    """


@main.command()
@click.argument("url")
@_DEVICES
@click.option("--json", "as_json", is_flag=True, help="One JSON line per event.")
def watch(url: str, devices: Path, *, as_json: bool) -> None:
    """Print what happens to the boxes, as it happens, to the end of the stream or Ctrl-C."""
    with _bad_input_ends_here():
        receiver, source = Receiver(read_devices(devices)), open_source(url)
        _announce(source)
        with _ends_on_signal():
            for event in _events(receiver, source):
                if as_json:
                    click.echo(json.dumps(event_json(event, receiver.as_of)))
                elif (line := event_line(event, receiver.as_of)) is not None:
                    click.echo(line)
        _demand_emm_pid(receiver, source)


@main.command("report")
@click.argument("url")
@_DEVICES
@click.option(
    "--as-of",
    callback=_instant,
    metavar="RFC3339",
    help="Look at the windows at this time instead of the stream's.",
)
def report_command(url: str, devices: Path, as_of: int | None) -> None:
    """Print what each box holds at the end of the stream (or at Ctrl-C), as JSON."""
    with _bad_input_ends_here():
        receiver, source = Receiver(read_devices(devices)), open_source(url)
        _announce(source)
        with _ends_on_signal():
            deque(_events(receiver, source), maxlen=0)
        _demand_emm_pid(receiver, source)
        click.echo(json.dumps(report(receiver, receiver.as_of if as_of is None else as_of)))


@contextmanager
def _bad_input_ends_here() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        click.echo(f"stbsim: {error}", err=True)
        sys.exit(_EXIT_BAD_INPUT)


@contextmanager
def _ends_on_signal() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the reading, and what comes after it still happen.

    SIGINT also where it came ignored, as a shell starts what runs in the background.
    """
    endings = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in endings]
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        for number, handler in zip(endings, before, strict=True):
            signal.signal(number, handler)


def _announce(source: Source) -> None:
    if isinstance(source, UdpSource):
        click.echo(f"stbsim: listening on {source.name}", err=True)


def _events(receiver: Receiver, source: Source) -> Iterator[Event]:
    sync = PacketSync()
    for chunk in source:
        for packet in sync.feed(chunk):
            yield from receiver.push(packet)


def _demand_emm_pid(receiver: Receiver, source: Source) -> None:
    if receiver.emm_source is None:
        raise InputError(
            f"{source.name}: no CAT with a CA_descriptor in {receiver.packets} packets"
        )


if __name__ == "__main__":
    main()
