"""Who has claimed which devices: a row a batch, while it is being sealed.

Claims are made one after the other, behind a gate: that is one row's lock, for a few milliseconds.
So the rows of `device_work`, and their place in the queue, need not be touched. A claim says who
works on what; `finish` looks at it under a lock before it writes.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, select

from portcullis.store.bulk import put, row_of
from portcullis.store.schema import claims

_GATE = ""
_COLUMNS = ("token", "claimed_at", "claimed_until", "devices", "device_ids")


class Claim(NamedTuple):
    """A batch in work. `until`: it may be taken over from then on, unless it is renewed.

    runs: the devices, in ascending order.
    """

    token: str
    at: datetime
    until: datetime
    runs: Sequence[range]

    @property
    def device_ids(self) -> frozenset[int]:
        """The devices."""
        return frozenset(chain.from_iterable(self.runs))


def runs_of(ids: Iterable[int]) -> Sequence[range]:
    """Numbers as runs of such that follow each other."""
    runs: list[range] = []
    for one in sorted(ids):
        if runs and runs[-1].stop == one:
            runs[-1] = range(runs[-1].start, one + 1)
        else:
            runs.append(range(one, one + 1))
    return runs


def enter(connection: Connection, now: datetime) -> None:
    """Lock out all others that would claim, until the transaction ends."""
    put(connection, claims, _COLUMNS, [row_of(_GATE, now, now, 0, "")], ["claimed_at"])


def read_claims(connection: Connection) -> list[Claim]:
    """All that is claimed, also by those that have died since."""
    return list(_read(connection, claims.c.token != _GATE))


def read_claim(connection: Connection, token: str, *, lock: bool = False) -> Claim | None:
    """What is claimed under a token; lock: nobody takes it over until the transaction ends."""
    return next(_read(connection, claims.c.token == token, lock=lock), None)


def _read(
    connection: Connection, where: ColumnElement[bool], *, lock: bool = False
) -> Iterator[Claim]:
    query = select(*(claims.c[name] for name in _COLUMNS)).where(where)
    for token, at, until, _, text in connection.execute(query.with_for_update() if lock else query):
        yield Claim(token, at, until, [_run(part) for part in text.split(",")])


def _run(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def devices_claimed(connection: Connection, now: datetime, latest: datetime) -> int:
    """How many devices are claimed; one that has died claims until `now`, or beyond `latest`."""
    rows = connection.execute(select(claims.c.claimed_until, claims.c.devices))
    return sum(devices for until, devices in rows if now < until <= latest)


def write_claim(connection: Connection, claim: Claim) -> None:
    """Note who works on what; a claim of no device ends."""
    if not claim.runs:
        connection.execute(delete(claims).where(claims.c.token == claim.token))
        return
    listed = ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in claim.runs)
    row = row_of(claim.token, claim.at, claim.until, sum(map(len, claim.runs)), listed)
    put(connection, claims, _COLUMNS, [row], _COLUMNS[1:])


def let_go(connection: Connection, claim: Claim, device_ids: Collection[int]) -> None:
    """Have some of a claim's devices be anybody's again."""
    left = runs_of(claim.device_ids.difference(device_ids))
    write_claim(connection, claim._replace(runs=left))
