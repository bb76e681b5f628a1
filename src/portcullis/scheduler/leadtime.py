"""Pure: how long a re-key takes, on what the air can carry. docs/keys.md, "Lead time"."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from portcullis.store.rekey import Progress, StreamCycles

MARKED_PER_S = 2000.0
"""How fast boxes are marked (`Jobs.rotate`): without a rotation to measure, no box is faster."""


@dataclass(frozen=True)
class Lead:
    """What a re-key needs: to seal every box, and to air each of them often enough."""

    sealing_s: float
    airing_s: float

    @property
    def delta(self) -> timedelta:
        """Both together."""
        return timedelta(seconds=self.sealing_s + self.airing_s)


def lead_time(boxes: int, cycle_s: float, cycles: int, sealed_per_s: float = MARKED_PER_S) -> Lead:
    """How long before a switch a re-key must begin.

    Args:
        boxes: to be given the new key.
        cycle_s: how long the slowest stream takes to air every EMM once, at its present stretch.
        cycles: full cycles that every box is to be given.
        sealed_per_s: boxes marked and sealed in a second.
    """
    return Lead(boxes / sealed_per_s, cycles * cycle_s)


def sealing_rate(rotations: Sequence[Progress]) -> float:
    """Boxes sealed in a second by the last rotation that shows it; else as fast as marked."""
    for one in reversed(rotations):
        if one.sealed_at is not None and one.sealed and one.sealed_at > one.begun_at:
            return one.sealed / (one.sealed_at - one.begun_at).total_seconds()
    return MARKED_PER_S


def slowest_cycle_s(streams: Sequence[StreamCycles]) -> float:
    """The longest full cycle of any stream; 0 where none is aired."""
    return max((one.cycle_s for one in streams), default=0.0)


@dataclass(frozen=True)
class Airing:
    """How often what was sealed has been aired. `cycles`: on the stream that has done least."""

    cycles_from: Mapping[str, float]
    cycles: float


def airing(progress: Progress, streams: Sequence[StreamCycles]) -> Airing:
    """Count cycles from when each stream had read all that was sealed.

    A stream that begins to count anew (its lease was lost) begins anew here too. Without a
    stream nothing is aired.
    """
    began: dict[str, float] = {}
    aired = []
    for one in streams:
        since = progress.cycles_from.get(one.name)
        if since is None or one.cycles < since:
            if one.revision < progress.revision:
                aired.append(0.0)
                continue
            since = one.cycles
        began[one.name] = since
        aired.append(one.cycles - since)
    return Airing(began, min(aired, default=0.0))


def expected_end(
    progress: Progress,
    now: datetime,
    *,
    switch_at: datetime,
    cycles: int,
    cycle_s: float,
    sealed_per_s: float,
) -> datetime:
    """When a rotation is expected to switch: at its time, or once every box has it."""
    left = max(progress.boxes - progress.sealed - progress.skipped, 0)
    sealing_s = 0.0 if progress.sealed_at is not None else left / sealed_per_s
    airing_s = max(cycles - progress.cycles_aired, 0.0) * cycle_s
    return max(switch_at, now + timedelta(seconds=sealing_s + airing_s))
