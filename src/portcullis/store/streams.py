"""What cyclers note of their streams with the leases, and what follows for a box."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Engine, select

from portcullis.store.database import database_now
from portcullis.store.schema import emms, leases

_PREFIX = "stream:"
_MINUTE_S = 60


class ClassFigures(NamedTuple):
    """One class of a carousel. `airings` None: the last class, for ever."""

    name: str
    every_s: float
    airings: int | None
    emms: int
    stretch: float


class Minute(NamedTuple):
    """Mean rates of one minute, kbit/s."""

    begins_at: datetime
    sent_kbit_s: int
    allocated_kbit_s: int


@dataclass(frozen=True)
class StreamFigures:
    """A stream as its cycler said last.

    Attributes:
        is_aired: whether its lease is held; else all is as it was at the end.
        heard_until: until when the lease holds, or when it ran out.
        link: of the holder: down, channel_open, in_use, stream_open.
        cycle_s: how long until every EMM has been aired, as things are.
        first_waiting: EMMs that wait for their first airing.
        classes: empty where the cycler is of a release that does not say.
    """

    name: str
    is_aired: bool
    holder: str
    heard_until: datetime
    mux: str | None
    link: str | None
    asked_kbit_s: int | None
    allocated_kbit_s: int | None
    cycle_s: float | None
    first_waiting: int | None
    classes: Sequence[ClassFigures]
    history: Sequence[Minute]

    @property
    def sent_kbit_s(self) -> int | None:
        """Mean of the last minute that is noted."""
        return self.history[-1].sent_kbit_s if self.history and self.is_aired else None

    @property
    def stretch(self) -> float | None:
        """The largest stretch of a class that has EMMs."""
        return max((one.stretch for one in self.classes if one.emms), default=None)


class NextAiring(NamedTuple):
    """When a stream airs a box's state next: not before it has to, and by `by` at the latest."""

    stream: str
    airing_class: str
    by: datetime


def stream_figures(engine: Engine) -> list[StreamFigures]:
    """Every stream that ever had a holder, by name."""
    with engine.connect() as connection:
        now = database_now(connection)
        rows = connection.execute(
            select(leases).where(leases.c.name.startswith(_PREFIX)).order_by(leases.c.name)
        ).all()
    return [_figures(row, now) for row in rows]


def _figures(row: Any, now: datetime) -> StreamFigures:  # noqa: ANN401 (a row of `leases`)
    said: Mapping[str, Any] = json.loads(row.note)
    return StreamFigures(
        name=row.name.removeprefix(_PREFIX),
        is_aired=row.expires_at > now,
        holder=row.holder,
        heard_until=row.expires_at,
        mux=said.get("mux"),
        link=said.get("link"),
        asked_kbit_s=said.get("asked_kbit_s"),
        allocated_kbit_s=said.get("allocated_kbit_s"),
        cycle_s=said.get("cycle_s"),
        first_waiting=said.get("first_waiting"),
        classes=[ClassFigures(**one) for one in said.get("classes", ())],
        history=[
            Minute(datetime.fromtimestamp(minute * _MINUTE_S, UTC), sent, allocated)
            for minute, sent, allocated in said.get("history", ())
        ],
    )


def next_airings(
    engine: Engine, device_id: int, streams: Sequence[StreamFigures]
) -> list[NextAiring]:
    """When each aired stream sends a box's state next; none for a box that has no state on air."""
    with engine.connect() as connection:
        now = database_now(connection)
        row = connection.execute(
            select(emms.c.first_aired_at).where(
                emms.c.device_id == device_id,
                emms.c.message_id == 0,
                emms.c.part == 1,
                emms.c.tombstone == 0,
            )
        ).one_or_none()
    if row is None:
        return []
    return [
        due
        for stream in streams
        if stream.is_aired and (due := next_airing(stream, row.first_aired_at, now)) is not None
    ]


def next_airing(
    stream: StreamFigures, first_aired_at: datetime | None, now: datetime
) -> NextAiring | None:
    """By when a state is aired next, from its age: it walks down the classes (docs/carousel.md).

    The last class is a ring whose place the database does not know: there, within one period.
    """
    if not stream.classes:
        return None
    if first_aired_at is None:
        return NextAiring(stream.name, "first airing", now)
    age_s = max((now - first_aired_at).total_seconds(), 0.0)
    begins_s = 0.0
    for place, one in enumerate(stream.classes):
        late_s = one.every_s * max(one.stretch - 1, 0.0)
        if one.airings is None:
            return NextAiring(stream.name, one.name, now + timedelta(seconds=one.every_s + late_s))
        ends_s = begins_s + (one.airings - (place == 0)) * one.every_s
        if age_s < ends_s:
            due_s = begins_s + (math.floor((age_s - begins_s) / one.every_s) + 1) * one.every_s
            return NextAiring(
                stream.name, one.name, first_aired_at + timedelta(seconds=due_s + late_s)
            )
        begins_s = ends_s
    return None
