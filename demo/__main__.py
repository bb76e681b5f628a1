"""Run the demo; exit status 0 only if every box agrees with the ledger."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo.headend import HeadEnd, make_boxes, make_stream
from demo.ledger import agrees, brief, rfc3339
from demo.sms import Outcome, SmsClient, play, until_on_air
from samples.make_day import BOXES, PRODUCTS

HOME = Path("var/demo")
DAY = Path("samples/day.jsonl")
PLAY_S = 75.0
CA_SYSTEM_ID = 0xFFF0

console = Console()


def main() -> int:
    """The whole demo; returns its exit status."""
    day = [json.loads(line) for line in DAY.read_text(encoding="utf-8").splitlines()]
    stream = HOME.parent / "demo-input.ts"
    shutil.rmtree(HOME, ignore_errors=True)
    (HOME / "state").mkdir(parents=True)
    if not stream.exists():
        console.print("Making a transport stream of three services with ffmpeg …")
        make_stream(stream)
    make_boxes(HOME, BOXES)
    head_end = HeadEnd(HOME, stream)
    console.print("Starting the head-end: encryptor, mux, emmg, scheduler, cycler, gateway …")
    with head_end.running():
        config = ["--config", str(head_end.config)]
        subprocess.run(
            head_end.command(
                "keys", "import-devices", str(HOME / "state" / "devices.csv"), *config
            ),
            check=True,
        )
        with _boxes_watching(head_end):
            outcome, orders, as_of = asyncio.run(_order(day))
        sealed = head_end.metric(1, "portcullis_emmg_sealed_total")
    (HOME / "ledger.json").write_text(
        json.dumps(outcome.ledger.as_of(as_of), indent=1, ensure_ascii=False), encoding="utf-8"
    )
    seen = _what_the_boxes_hold(as_of)
    aired = _as_run(head_end)
    report = _report(outcome, orders, seen, {"sealed": int(sealed), **aired})
    (HOME / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return _show(report, outcome, seen)


@contextmanager
def _boxes_watching(head_end: HeadEnd) -> Any:  # noqa: ANN401 (a context manager)
    """Virtual boxes on the live stream, so that the demo can be watched: var/demo/boxes.log."""
    with (HOME / "boxes.log").open("wb") as log:
        url = f"udp://127.0.0.1:{head_end.ts_port}"
        command = [sys.executable, "-m", "stbsim.main", "watch", url]
        boxes = subprocess.Popen(
            [*command, "--devices", str(HOME / "devices.json")], stdout=log, stderr=log
        )
        try:
            yield
        finally:
            boxes.terminate()
            boxes.wait(10)


async def _order(day: list[dict[str, Any]]) -> tuple[Outcome, list[dict[str, Any]], datetime]:
    client = SmsClient(HOME / "state" / "client.json")
    await client.sign_in()
    for product_id, name in PRODUCTS.items():
        (await client.call("PUT", f"/products/{product_id}", {"name": name})).raise_for_status()
    columns = [TextColumn("{task.description:<28}"), BarColumn(40), MofNCompleteColumn()]
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        orders = progress.add_task("orders of the day", total=len(day))
        outcome = await play(client, day, PLAY_S, lambda: progress.advance(orders))
        on_air = progress.add_task("boxes with all on air", total=len(outcome.last_request))
        await until_on_air(client, outcome, lambda: progress.advance(on_air))
        read = progress.add_task("reading each order's life", total=len(outcome.accepted))
        lives = await _lives(client, outcome, lambda: progress.advance(read))
    await client.close()
    # The boxes hear a stream time (TDT, once a second) beyond the moment of the ledger.
    as_of = datetime.now(UTC).replace(microsecond=0)
    await asyncio.sleep(2.5)
    return outcome, lives, as_of


async def _lives(
    client: SmsClient, outcome: Outcome, tick: Callable[[], None]
) -> list[dict[str, Any]]:
    lives = []
    for answer in outcome.accepted.values():
        lives.append((await client.call("GET", f"/requests/{answer['request_id']}")).json())
        tick()
    return lives


def _what_the_boxes_hold(as_of: datetime) -> dict[str, Any]:
    """Ask boxes that see nothing but the stream as aired and their own keys."""
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "stbsim.main", "report", f"file:{HOME / 'out.ts'}"),
            *("--devices", str(HOME / "devices.json"), "--as-of", rfc3339(as_of)),
        ],
        check=True,
        capture_output=True,
    )
    seen: dict[str, Any] = json.loads(answer.stdout)
    return seen


def _as_run(head_end: HeadEnd) -> dict[str, int]:
    """What the as-run log says was aired."""
    command = head_end.command("asrun", "--json", "--config", str(head_end.config))
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    sizes = [json.loads(line)["size"] for line in answer.stdout.splitlines()]
    return {"aired": len(sizes), "bytes": sum(sizes)}


def _report(
    outcome: Outcome, orders: list[dict[str, Any]], seen: dict[str, Any], emms: dict[str, int]
) -> dict[str, Any]:
    ledger = json.loads((HOME / "ledger.json").read_text(encoding="utf-8"))
    boxes = {device_id: box for device_id, box in ledger.items() if device_id != "as_of"}
    agree = sum(agrees(box, seen["boxes"][device_id]) for device_id, box in boxes.items())
    aired = [order for order in orders if order["status"] == "on_air"]
    latencies = sorted(
        (_moment(order["on_air_at"]) - _moment(order["accepted_at"])) / timedelta(milliseconds=1)
        for order in aired
    )
    return {
        "orders": {
            "sent": outcome.sent,
            "accepted": len(outcome.accepted),
            "refused": outcome.refused.total(),
        },
        "boxes": {"total": len(boxes), "agree": agree},
        "latency_ms": {
            f"p{share}": round(latencies[min(len(latencies) * share // 100, len(latencies) - 1)], 1)
            for share in (50, 95, 99)
        },
        "emms": emms,
        "stream": {name: seen[name] for name in ("packets", "emm_pid", "ca_system_id")},
    }


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _show(report: dict[str, Any], outcome: Outcome, seen: dict[str, Any]) -> int:
    ledger = json.loads((HOME / "ledger.json").read_text(encoding="utf-8"))
    table = Table(
        "box", "ordered", "held by the box", "", title="Boxes (the first ten, and all that differ)"
    )
    for number, (device_id, box) in enumerate(sorted(ledger.items())):
        if device_id == "as_of":
            continue
        held = seen["boxes"][device_id]
        same = agrees(box, held)
        if number < 10 or not same:  # noqa: PLR2004 (as the title says)
            table.add_row(device_id, brief(box), brief(held), "agrees" if same else "DIFFERS")
    console.print(table)
    figures = Table("figure", "value")
    for group, values in report.items():
        for name, value in values.items():
            figures.add_row(f"{group}.{name}", str(value))
    console.print(figures)
    for surprise in outcome.surprises:
        console.print(f"unexpected: {surprise}")
    console.print(
        f"Left in {HOME}: out.ts report.json ledger.json devices.json asrun/ requests.jsonl"
    )
    boxes = report["boxes"]
    good = boxes["agree"] == boxes["total"] and not outcome.surprises
    console.print("All boxes agree with the ledger." if good else "THE BOXES DO NOT AGREE.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
