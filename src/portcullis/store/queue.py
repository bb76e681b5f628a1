"""The queue of devices to be sealed: an index of `device_work`, and how far it has been claimed.

What has been sealed is gone from the index, but a server walks past it until it is cleared away.
So while more is due than one claim takes, the next goes on where the one before it has ended.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import (
    BindParameter,
    Connection,
    Engine,
    Integer,
    Select,
    bindparam,
    func,
    or_,
    select,
)

from portcullis.store.bulk import literal, put, row_of
from portcullis.store.claims import all_claims, claims_of, devices_claimed
from portcullis.store.database import as_time, see_uncommitted, utc_now
from portcullis.store.readings import NOW, Asked, Reading, place, read
from portcullis.store.schema import PRIORITIES, UtcDateTime, device_work, queue_places

_LONGEST_WAIT = timedelta(minutes=10)
_LEAST_PAGE = 500  # entries: as many as others may have claimed are soon passed over


class Place(NamedTuple):
    """The entry of one priority that the last claim has ended with.

    begun_at: when the first entry was last looked at. Others may have come before the place since,
    those of a dead EMMG at least: it is given up after as long as a claim holds.
    """

    due_at: datetime
    state_sealed_at: datetime | None
    device_id: int
    begun_at: datetime


def latest(now: datetime, hold: timedelta) -> datetime:
    """The latest that anything is put off to: beyond it, the clock has stepped back since."""
    return now + hold + _LONGEST_WAIT


_WORK = device_work.c
_ORDER = _WORK.due_at, _WORK.state_sealed_at, _WORK.device_id
_AFTER = (
    select(_WORK.device_id)
    .where(
        _WORK.priority == place("priority"),
        place("after"),
        or_(_WORK.due_at <= place("now"), _WORK.due_at > place("latest")),
    )
    .order_by(*_ORDER)
    .limit(place("size"))
    .subquery("queue")
)
_PAGE = Reading([_AFTER.c.device_id])
_ENTRY = Reading(_ORDER, _WORK.device_id == place("device_id"), _WORK.due_at.is_not(None))
_PLACES = Reading(tuple(queue_places.c))


class Queue:
    """What is due, for the one that claims: others wait until its transaction ends.

    now: the database's time, once nobody else claimed any more. claims: that have been made.
    """

    def __init__(self, connection: Connection, hold: timedelta) -> None:
        put(connection, queue_places, ("priority",), list(map(row_of, PRIORITIES)), ("priority",))
        # Claims before entries: who lets go of a device has taken it from the queue.
        [[now]], places, claims = read(connection, NOW.of(), _PLACES.of(), all_claims())
        self.now: datetime = now
        self.claims = claims_of(claims)
        self._connection, self._hold = connection, hold
        self._places = {
            priority: Place(*found) if found[0] is not None and self._lasts(found[-1]) else None
            for priority, *found in zip(*places, strict=True)
        }

    def _lasts(self, begun_at: datetime) -> bool:
        return self.now - self._hold < begun_at <= self.now

    def take(self, limit: int, claimed: Collection[int]) -> list[int]:
        """Up to `limit` devices that are not claimed, fresh orders first; notes the new places."""
        ids: list[int] = []
        # At once: each mostly has less than that, and a statement costs more than entries do.
        size = max(limit, _LEAST_PAGE)
        pages = [self._page(one, self._places[one], size) for one in PRIORITIES]
        for priority, [page] in zip(PRIORITIES, read(self._connection, *pages), strict=True):
            if len(ids) < limit:
                ids += self._take_of(priority, page, size, most=limit - len(ids), claimed=claimed)
        return ids

    def _take_of(
        self, priority: int, page: list[int], size: int, *, most: int, claimed: Collection[int]
    ) -> Collection[int]:
        """Some of one priority; page: its first entries, `size` if there are more."""
        before = at = self._places[priority]
        begun_at = self.now if at is None else at.begun_at
        found: dict[int, None] = {}
        while True:
            new = [one for one in page if one not in claimed and one not in found]
            found |= dict.fromkeys(new[: most - len(found)])
            is_over = len(found) == most
            if is_over or len(page) == size:
                at = self._place_of([*found][-1] if is_over else page[-1], begun_at)
                is_over |= at is None
            else:  # on with what may have come before the place
                is_over = begun_at == self.now
                at, begun_at = None, self.now
            if is_over:
                break
            [[page]] = read(self._connection, self._page(priority, at, size))
        if at != before:
            columns = queue_places.c.keys()
            row = row_of(priority, *at or (None,) * 4)
            put(self._connection, queue_places, columns, [row], columns[1:])
        return found

    def _page(self, priority: int, after: Place | None, size: int) -> Asked:
        """The next entries, claimed or not."""
        return _PAGE.of(
            priority=literal(priority),
            after="1 = 1" if after is None else _comes_after(after),
            now=literal(self.now),
            latest=literal(latest(self.now, self._hold)),
            size=literal(size),
        )

    def _place_of(self, device_id: int, begun_at: datetime) -> Place | None:
        """Where a device is; None: it has just been taken out."""
        [found] = read(self._connection, _ENTRY.of(device_id=literal(device_id)))
        for due_at, state_sealed_at, _ in zip(*found, strict=True):
            return Place(due_at, state_sealed_at, device_id, begun_at)
        return None


def _comes_after(one: Place) -> str:
    """The condition, NULL before all others: as ranges of the index, which a row value is not."""
    due_at, sealed_at, device_id = map(literal, one[:3])
    later = f"state_sealed_at > {sealed_at} OR state_sealed_at = {sealed_at}"
    if one.state_sealed_at is None:
        later = "state_sealed_at IS NOT NULL OR state_sealed_at IS NULL"
    return f"(due_at > {due_at} OR due_at = {due_at} AND ({later} AND device_id > {device_id}))"


Moment = datetime | BindParameter[datetime]


def _queue(priority: int, now: Moment, until: Moment) -> Select[tuple[int]]:
    due = or_(_WORK.due_at <= now, _WORK.due_at > until)
    return select(_WORK.device_id).where(_WORK.priority == priority, due).order_by(_WORK.due_at)


_NOW, _LATEST = (bindparam(name, type_=UtcDateTime()) for name in ("now", "latest"))
_WAITING = select(
    *(
        select(func.count())
        .select_from(
            _queue(one, _NOW, _LATEST).limit(bindparam("most", type_=Integer())).subquery()
        )
        .scalar_subquery()
        for one in PRIORITIES
    )
)
_ENDS = select(
    utc_now(),
    *(
        select(end(_WORK.due_at)).where(_WORK.priority == one).scalar_subquery()
        for one in PRIORITIES
        for end in (func.min, func.max)
    ),
)


def is_any_due(engine: Engine, hold: timedelta) -> bool:
    """Whether there may be something to claim: what an idle EMMG asks, mostly in one statement.

    There is if more devices are due than are claimed.
    """
    with engine.connect() as connection:
        see_uncommitted(connection)
        said, *ends = connection.execute(_ENDS).one()
        now = as_time(said)
        until = latest(now, hold)
        # Each is asked for itself: what is not committed yet may come and go between two of them.
        is_due = any(first <= now for first in ends[::2] if first is not None)
        if not is_due and not any(last > until for last in ends[1::2] if last is not None):
            return False
        claimed = devices_claimed(connection, now, until)
        asked = {"now": now, "latest": until, "most": claimed + 1}
        due: int = sum(connection.execute(_WAITING, asked).one())
        return due > claimed
