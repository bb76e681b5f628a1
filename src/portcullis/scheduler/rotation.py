"""Pure: what the chains of one product call for now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from portcullis.store.rekey import Progress
from portcullis.store.rotation import Chain


@dataclass(frozen=True)
class PrepareEpoch:
    """The next epoch of the chain is to be given to boxes, for `switch_at`."""

    chain: Chain
    switch_at: datetime


@dataclass(frozen=True)
class PrepareChain:
    """The chain is used up: a new one is to be made and given to boxes, for `switch_at`."""

    chain: Chain
    switch_at: datetime


@dataclass(frozen=True)
class BeginRekey:
    """Boxes are to be given what is prepared."""

    chain: Chain


@dataclass(frozen=True)
class MarkBoxes:
    """Boxes are still to be marked for what is prepared."""

    chain: Chain
    progress: Progress


@dataclass(frozen=True)
class CheckBoxes:
    """All are marked; not all have been found sealed."""

    chain: Chain
    progress: Progress


@dataclass(frozen=True)
class WatchAir:
    """All are sealed; they are not aired often enough yet, or their time has not come."""

    chain: Chain
    progress: Progress


Step = PrepareEpoch | PrepareChain | BeginRekey | MarkBoxes | CheckBoxes | WatchAir


def next_steps(
    chains: Sequence[Chain],
    rotations: Mapping[tuple[int, int], Progress],
    now: datetime,
    period: timedelta,
    lead: timedelta,
) -> list[Step]:
    """Decide for the unretired chains of one product, oldest first.

    `rotations`: by (product_id, seal_epoch). `lead`: how long before a switch boxes begin to be
    given the next key.
    """
    steps: list[Step] = []
    for chain in chains:
        if chain.switch_at is None:
            continue
        progress = rotations.get((chain.product_id, chain.seal_epoch))
        if progress is None:
            steps.append(BeginRekey(chain))
        elif progress.marked_at is None:
            steps.append(MarkBoxes(chain, progress))
        elif progress.sealed_at is None:
            steps.append(CheckBoxes(chain, progress))
        else:
            steps.append(WatchAir(chain, progress))
    newest = chains[-1]
    if newest.switch_at is None and newest.live_since is not None:
        # A rotation that was long due is prepared first, like any other.
        switch_at = max(newest.live_since + period, now + lead)
        if newest.live_since + period - lead <= now:
            used_up = newest.live_epoch == newest.last_epoch
            steps.append(
                PrepareChain(newest, switch_at) if used_up else PrepareEpoch(newest, switch_at)
            )
    return steps


def may_switch(chain: Chain, cycles_aired: float, cycles: int, now: datetime) -> bool:
    """Whether what is prepared goes live: its time has come, and every box has been told.

    However late that gets: content under a key that no box was given is dark.
    """
    assert chain.switch_at is not None  # noqa: S101 (it is prepared)
    return chain.switch_at <= now and cycles_aired >= cycles
