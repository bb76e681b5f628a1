"""What is noted of an EMM beside its bytes: 8 bytes once it is settled, 52 before. Pure."""

from collections.abc import Iterator, Sequence
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portcullis.store.airable import AirableEmm

Slots = NDArray[np.int64]
Records = NDArray[Any]

# In the last class: when it is due (milliseconds, see `Rings`).
SETTLED = np.dtype([("slot", "u4"), ("due", "u4")])
# Waiting for its window or its first airing, or walking down the classes.
WALKING = np.dtype(
    [
        *SETTLED.descr,
        ("airings", "u2"),  # in the present class
        ("parts", "u1"),
        ("told", "u1"),  # 1: the database knows of (or has been queued) the first airing
        ("covers", "i8"),
        ("revision", "i8"),
        ("first_aired", "f8"),  # Unix seconds; nan: not yet
        ("since", "f8"),  # Unix seconds since when an order waits for it; nan: none does
    ]
)
OF_THE_EMM = ("parts", "told", "covers", "revision", "first_aired", "since")


def record_of(slot: int, emm: AirableEmm, first_aired: float) -> Records:
    """The one record of a row; `first_aired`: what is known where the row does not say."""
    told = emm.first_aired_at is not None
    since = nan
    if not told and emm.ordered_at is not None:
        since = max(emm.ordered_at, -inf if emm.starts_at is None else emm.starts_at)
    aired = first_aired if emm.first_aired_at is None else emm.first_aired_at
    fields = (slot, 0, 0, emm.parts, told, emm.covers, emm.revision, aired, since)
    return np.array([fields], WALKING)


def settled(records: Records) -> Records:
    """What is kept of records in the last class."""
    kept = np.empty(len(records), SETTLED)
    kept["slot"] = records["slot"]
    return kept


def settled_states(slots: Slots) -> Records:
    """The records of states that were first aired long ago."""
    records = np.empty(len(slots), SETTLED)
    records["slot"] = slots
    return records


def details_of_settled(slot: int) -> Records:
    """What is still known of a settled EMM, as one that walks has it."""
    record = np.zeros(1, WALKING)
    record["slot"], record["told"] = slot, 1
    record["first_aired"] = record["since"] = nan
    return record


def each(records: Records, chosen: NDArray[np.bool_] | None = None) -> Iterator[Records]:
    """Views of the records one by one, or of those `chosen`."""
    places = range(len(records)) if chosen is None else np.flatnonzero(chosen).tolist()
    for place in places:
        yield records[place : place + 1]


def chosen(records: Records, which: NDArray[Any] | slice) -> Records:
    """Copies of those that a mask, places or a slice name, in a twentieth of NumPy's own time."""
    return np.array(_raw(records)[which]).view(records.dtype)


def joined(pieces: Sequence[Records]) -> Records:
    """One behind the other; all of one dtype."""
    return np.concatenate([_raw(piece) for piece in pieces]).view(pieces[0].dtype)


def put(records: Records, start: int, others: Records) -> None:
    """Put others of the same dtype over those from `start` on."""
    _raw(records)[start : start + len(others)] = _raw(others)


def _raw(records: Records) -> Records:
    """The same, not as fields: NumPy copies field by field, and is slow at it."""
    return records.view((np.void, records.itemsize))
