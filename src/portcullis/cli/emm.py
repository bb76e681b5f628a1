"""`portcullis emm decode`: sections and streams, field by field."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import click

from dvbwire.ts import PACKET_SIZE, SYNC_BYTE
from portcullis.cli.context import Context, Number, common_options, to_json
from portcullis.cli.emm_sources import Boxes, Found, in_file, in_stream, read_boxes
from portcullis.emm import EmmHeader, EmmIntegrityError, dissect_payload, dissect_section
from portcullis.emmg.config import EmmgConfig
from portcullis.runtime.errors import PortcullisError

_CHUNK_BYTES = PACKET_SIZE * 512
_ENVELOPE_BYTE = 16
_MOST_DIGITS = 20


@click.group()
def emm() -> None:
    """Look into EMMs."""


@emm.command()
@click.argument("source", type=click.File("rb"))
@click.option("--pid", type=Number(), metavar="PID", help="The EMM PID; else the CAT tells.")
@click.option("--device", "device_id", type=int, metavar="ID", help="Only EMMs to this device.")
@click.option(
    "--devices",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Boxes' keys, as stbsim takes them: payloads are opened and shown, product keys never.",
)
@click.option(
    "--ca-system-id",
    type=Number(),
    metavar="ID",
    help="Whose EMMs they are; else the CAT tells, else emmg.ca_system_id.",
)
@common_options
@click.pass_obj
def decode(
    context: Context,
    *,
    source: BinaryIO,
    pid: int | None,
    device_id: int | None,
    devices: Path | None,
    ca_system_id: int | None,
) -> None:
    """Show EMMs field by field: a file of sections, or a transport stream.

    What is damaged is shown as far as it can be read, with the byte at which it breaks, and the
    rest follows. The exit status is then 1.
    """
    boxes = None if devices is None else read_boxes(devices)
    default = EmmgConfig.of(context.source()).ca_system_id if ca_system_id is None else ca_system_id
    first = source.read(_CHUNK_BYTES)
    data = chain((first,), iter(lambda: source.read(_CHUNK_BYTES), b""))
    if pid is None and first[:1] != bytes((SYNC_BYTE,)):
        found = in_file(b"".join(data), default)
    else:
        found = in_stream(data, pid, ca_system_id, default)
    sections = damaged = 0
    for one in found:
        shown = describe(one, boxes)
        if device_id is not None and shown.get("address", device_id) != device_id:
            continue
        sections += bool(one.section)
        damaged += bool(shown["faults"])
        click.echo(to_json(shown) if context.as_json else "\n".join(lines(shown)))
    if damaged:
        raise PortcullisError(f"{damaged} of those shown are damaged, or no EMM: see their faults")
    if not sections:
        raise PortcullisError("no EMM found: are file, PID and device the right ones?")


def describe(found: Found, boxes: Boxes | None) -> dict[str, Any]:
    """All there is to say about a section, as `--json` shows it.

    `payload` is there if it could be opened, `sealed` says why it could not.
    """
    shown: dict[str, Any] = {**found.place, "size": len(found.section)}
    faults: list[dict[str, Any]] = []
    shown["faults"] = faults
    if found.fault:
        faults.append({"where": "stream", "byte": None, "reason": found.fault})
    if not found.section:
        return shown
    whole = dissect_section(found.section)
    shown["fields"] = [asdict(one) for one in whole.fields]
    faults += [{"where": "section", **asdict(fault)} for fault in whole.faults]
    if faults:
        return shown
    header = EmmHeader.from_section(found.section)
    shown |= asdict(header) | {"kind": header.kind.name.lower()}
    if boxes is None or not boxes.has_key(header.address):
        shown["sealed"] = f"the key of device {header.address} is not given"
        return shown
    try:
        payload = boxes.open(header, found.section, found.ca_system_ids)
    except EmmIntegrityError as error:
        shown["sealed"] = str(error)
        faults.append({"where": "section", "byte": _ENVELOPE_BYTE, "reason": str(error)})
        return shown
    if payload is None:
        shown["sealed"] = f"the other parts of {header.parts} have not come yet"
        return shown
    inner = dissect_payload(header.kind, payload)
    shown["payload"] = [asdict(one) for one in inner.fields]
    faults += [{"where": "payload", **asdict(fault)} for fault in inner.faults]
    return shown


def lines(shown: Mapping[str, Any]) -> Iterator[str]:
    """The same for people: a line a field, an empty one at the end."""
    place = ", ".join(
        f"PID 0x{value:04X}" if name == "pid" else f"{name} {value}"
        for name, value in shown.items()
        if name in ("byte", "packet", "pid")
    )
    what = f"{shown['kind']} for device {shown['address']}" if "kind" in shown else "section"
    yield f"{what}, {shown['size']} bytes: {place}" if shown["size"] else f"stream: {place}"
    yield from map(_field_line, shown.get("fields", ()))
    if "payload" in shown:
        yield "  payload:"
        yield from map(_field_line, shown["payload"])
    if "sealed" in shown and not shown["faults"]:
        yield f"  payload: sealed; {shown['sealed']}"
    for fault in shown["faults"]:
        at = "" if fault["byte"] is None else f", byte {fault['byte']}"
        yield f"! {fault['where']}{at}: {fault['reason']}"
    yield ""


def _field_line(field: Mapping[str, Any]) -> str:
    first, end = field["bit"] // 8, (field["bit"] + field["bits"] + 7) // 8
    place = f"{first}–{end - 1}" if end - 1 > first else str(first)
    bits = ""
    if field["bit"] % 8 or field["bits"] % 8:
        low = 8 * end - field["bit"] - field["bits"]
        high = low + field["bits"] - 1
        bits = f"{high}–{low}" if high > low else str(high)
    digits = "hidden" if field["hex"] is None else field["hex"]
    if len(digits) > _MOST_DIGITS:
        digits = digits[: _MOST_DIGITS - 1] + "…"
    name = f"{field['group']} {field['name']}".strip()
    line = f"  {place:>7} {bits:>5}  {name:<29} {digits:<{_MOST_DIGITS}} {field['meaning']}"
    return line.rstrip()
