"""What `portcullis plan` foretells is what a cycler airs: process, database, multiplexer."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from cycler_peer import MuxPeer, free_port, running_cycler
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, select, update

from portcullis.cli.main import cli
from portcullis.store.database import database_now, engine_for, writing
from portcullis.store.schema import airings, emms, feed
from tests.unit.cycler_emms import section_of

_KBIT_S = 2000
_CLASSES = """
[[class]]
name = "fresh"
every = "200ms"
airings = 3
[[class]]
name = "recent"
every = "400ms"
airings = 3
min_share = 0.1
[[class]]
name = "steady"
every = "1s"
min_share = 0.3
"""
_WALK_S = 3 * 0.2 + 3 * 0.4


def _plan(folder: Path, boxes: int, orders_per_s: float) -> Any:  # noqa: ANN401 (its JSON)
    classes = folder / "classes.toml"
    classes.write_text(_CLASSES)
    said = CliRunner().invoke(
        cli,
        [
            *("plan", "--boxes", str(boxes), "--bandwidth", str(_KBIT_S), "--json"),
            *("--classes", str(classes), "--orders-per-day", str(orders_per_s * 86_400)),
        ],
    )
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)


def _populate(engine: Engine, boxes: int) -> None:
    """A state of one packet for each box, first aired long ago."""
    row = {"message_id": 0, "part": 1, "parts": 1, "kind": 1, "epoch": 0, "number": 1}
    row |= {"cause": "order", "covers": 1, "revision": 1}
    with writing(engine) as connection:
        row["sealed_at"] = database_now(connection)
        row["first_aired_at"] = datetime(2026, 1, 1, tzinfo=UTC)
        connection.execute(
            emms.insert(),
            [
                row | {"device_id": box, "section": section_of(box, 1, 100)}
                for box in range(1, boxes + 1)
            ],
        )
        connection.execute(update(feed).values(revision=1))


def _order(engine: Engine, box: int, number: int) -> None:
    """What an EMMG does in its last transaction, to a box that has not been ordered for."""
    with writing(engine) as connection:
        held = connection.execute(select(feed.c.revision).with_for_update()).scalar_one()
        now = database_now(connection)
        connection.execute(
            update(emms)
            .where(emms.c.device_id == box)
            .values(
                number=number,
                covers=number,
                revision=held + 1,
                section=section_of(box, number, 100),
                sealed_at=now,
                first_aired_at=None,
            )
        )
        connection.execute(
            airings.insert().values(device_id=box, message_id=0, wanted=number, sealed_at=now)
        )
        connection.execute(update(feed).values(revision=held + 1))


class _Orders:
    """So many a second, each for another box; `boxes` are those ordered for."""

    def __init__(self, engine: Engine, population: int, per_s: float) -> None:
        self.boxes: set[int] = set()
        self._engine = engine
        self._population = population
        self._per_s = per_s

    async def go_on(self) -> None:
        """Until cancelled."""
        begun = time.monotonic()
        for number in count(1):
            await asyncio.sleep(begun + number / self._per_s - time.monotonic())
            box = 1 + number * 7919 % self._population  # 7919 is prime: another box each time
            self.boxes.add(box)
            await asyncio.to_thread(_order, self._engine, box, 1 + number)


def _gaps_s(peer: MuxPeer, since: float, but: set[int]) -> Iterator[float]:
    """From one airing of a box's EMM to its next, at the multiplexer."""
    heard = defaultdict[int, list[float]](list)
    for moment, packet in peer.packets:
        if moment >= since:
            heard[int.from_bytes(packet[8:13])].append(moment)
    for box, moments in heard.items():
        if box not in but:
            yield from (b - a for a, b in pairwise(moments))


def _by_class(monitor: int, name: str) -> dict[str, float]:
    """A metric's values by their label `class`."""
    text = httpx.get(f"http://127.0.0.1:{monitor}/metrics", timeout=10).text
    return {
        sample.labels["class"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.parametrize(
    ("boxes", "orders_per_s"),
    [
        (500, 0),  # on time
        (1500, 5),  # orders stretch what was nearly on time
        (4000, 10),  # three times as many as the bandwidth carries
    ],
)
def test_a_cycler_airs_what_the_plan_says(
    boxes: int, orders_per_s: float, mariadb_url: str, tmp_path: Path
) -> None:
    """Within 5 %: what each class gets, its stretch, and how long a box waits."""
    plan = _plan(tmp_path, boxes, orders_per_s)
    engine = engine_for(mariadb_url)
    _populate(engine, boxes)
    orders = _Orders(engine, boxes, orders_per_s)
    stream = f"bandwidth_kbit_s = {_KBIT_S}\n{_CLASSES.replace('[[', '[[cycler.stream.')}"
    monitor = free_port()
    aired = "portcullis_cycler_class_aired_emms_total"

    async def air(peer: MuxPeer) -> tuple[dict[str, float], dict[str, float], float]:
        """Packets a second and stretch of each class, and seconds from airing to airing."""
        async with (
            running_cycler(tmp_path / "c", mariadb_url, peer.port, stream, monitor),
            asyncio.TaskGroup() as tasks,
        ):
            await peer.until(lambda: len(peer.datagrams) > 0)
            ordering = tasks.create_task(orders.go_on()) if orders_per_s else None
            # Until the boxes that are ordered for come back as fast as they leave.
            await asyncio.sleep(2 * plan["worst_wait_s"] + _WALK_S)
            begun, before = time.monotonic(), await asyncio.to_thread(_by_class, monitor, aired)
            await asyncio.sleep(max(2.2 * plan["worst_wait_s"], 3.0))
            ended, after = time.monotonic(), await asyncio.to_thread(_by_class, monitor, aired)
            stretch = await asyncio.to_thread(
                _by_class, monitor, "portcullis_cycler_class_stretch_ratio"
            )
            if ordering is not None:
                ordering.cancel()
        per_s = {name: (after[name] - before[name]) / (ended - begun) for name in after}
        per_s["fresh"] += per_s.pop("first")
        return per_s, stretch, median(_gaps_s(peer, begun, orders.boxes))

    async def go() -> tuple[dict[str, float], dict[str, float], float]:
        peer = MuxPeer()
        peer.kbit_s = _KBIT_S
        await peer.start()
        try:
            return await air(peer)
        finally:
            peer.stop()

    per_s, stretch, gap_s = asyncio.run(go())
    engine.dispose()
    for one in plan["classes"]:
        assert per_s[one["name"]] == pytest.approx(one["gets_per_s"], rel=0.05, abs=1)
        assert stretch[one["name"]] == pytest.approx(one["stretch"], rel=0.05)
    assert gap_s == pytest.approx(plan["worst_wait_s"], rel=0.05)
