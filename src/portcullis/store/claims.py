"""Who has claimed which devices: a row a batch, while it is being sealed.

Claims are made one after the other (see `queue`), so the rows of `device_work`, and their place in
the queue, need not be touched. A claim says who works on what; `finish` looks at it under a lock
before it writes.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from portcullis.store.bulk import Script, literal, row_of
from portcullis.store.readings import Asked, Reading, place
from portcullis.store.schema import claims

_COLUMNS = tuple(claims.c)


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


_ALL = Reading(_COLUMNS)
_LOCKED = Reading(_COLUMNS, claims.c.token == place("token"), lock=True)
_ONE = Reading(_COLUMNS, claims.c.token == place("token"))


def all_claims() -> Asked:
    """What `claims_of` takes: all that is claimed, also by those that have died since."""
    return _ALL.of()


def claim_under(token: str, *, lock: bool = False) -> Asked:
    """What `claims_of` takes; lock: nobody takes it over until the transaction ends."""
    return (_LOCKED if lock else _ONE).of(token=literal(token))


def claims_of(found: Sequence[list[Any]]) -> list[Claim]:
    """The claims."""
    return [
        Claim(token, at, until, [_run(part) for part in text.split(",")])
        for token, at, until, _, text in zip(*found, strict=True)
    ]


def _run(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def devices_claimed(connection: Connection, now: datetime, latest: datetime) -> int:
    """How many devices are claimed; one that has died claims until `now`, or beyond `latest`."""
    rows = connection.execute(select(claims.c.claimed_until, claims.c.devices))
    return sum(devices for until, devices in rows if now < until <= latest)


def write_claim(script: Script, claim: Claim) -> None:
    """Have it noted who works on what; a claim of no device ends."""
    if not claim.runs:
        script.add(f"DELETE FROM claims WHERE token = {literal(claim.token)}")  # noqa: S608 (a literal)  # nosec B608
        return
    listed = ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in claim.runs)
    row = row_of(claim.token, claim.at, claim.until, sum(map(len, claim.runs)), listed)
    script.put(claims, claims.c.keys(), [row], claims.c.keys()[1:])


def let_go(script: Script, claim: Claim, device_ids: Collection[int]) -> None:
    """Have some of a claim's devices be anybody's again."""
    left = runs_of(claim.device_ids.difference(device_ids))
    write_claim(script, claim._replace(runs=left))
