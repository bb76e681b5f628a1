"""Pure: what the chains of one product call for now."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

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
class MarkBoxes:
    """Boxes are still to be marked for what is prepared."""

    chain: Chain


@dataclass(frozen=True)
class Switch:
    """What is prepared goes live."""

    chain: Chain


Step = PrepareEpoch | PrepareChain | MarkBoxes | Switch


def next_steps(
    chains: Sequence[Chain],
    marked: frozenset[tuple[int, int]],
    now: datetime,
    period: timedelta,
    prepare_ahead: timedelta,
) -> list[Step]:
    """Decide for the unretired chains of one product, oldest first.

    `marked`: (product_id, seal_epoch) whose boxes have all been marked. A switch waits for
    them, however late it gets: content under a key that no box was given is dark.
    """
    steps: list[Step] = []
    for chain in chains:
        if chain.switch_at is None:
            continue
        if (chain.product_id, chain.seal_epoch) not in marked:
            steps.append(MarkBoxes(chain))
        elif chain.switch_at <= now:
            steps.append(Switch(chain))
    newest = chains[-1]
    if newest.switch_at is None and newest.live_since is not None:
        # A rotation that was long due is prepared first, like any other.
        switch_at = max(newest.live_since + period, now + prepare_ahead)
        if newest.live_since + period - prepare_ahead <= now:
            used_up = newest.live_epoch == newest.last_epoch
            steps.append(
                PrepareChain(newest, switch_at) if used_up else PrepareEpoch(newest, switch_at)
            )
    return steps
