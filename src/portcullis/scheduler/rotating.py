"""The rotation of product keys as a job: decide, do one step, keep count, tell how far it is."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby

from sqlalchemy import Engine

from portcullis.runtime.logging import get_logger
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.scheduler import metrics
from portcullis.scheduler.chains import begin_chain
from portcullis.scheduler.config import SchedulerConfig
from portcullis.scheduler.leadtime import (
    MARKED_PER_S,
    Lead,
    airing,
    expected_end,
    lead_time,
    sealing_rate,
    slowest_cycle_s,
)
from portcullis.scheduler.rotation import (
    BeginRekey,
    CheckBoxes,
    MarkBoxes,
    PrepareChain,
    PrepareEpoch,
    Step,
    WatchAir,
    may_switch,
    next_steps,
)
from portcullis.store import rekey, rotation

ROTATE_EVERY_S = 0.5
_CHUNK = int(MARKED_PER_S * ROTATE_EVERY_S)
_CHECKED_AT_ONCE = 20
_NOTED_EVERY = timedelta(seconds=5)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)

log = get_logger("portcullis.scheduler")


class Rotation:
    """Takes every product's key rotation further, one step a call.

    `leads`: asked before every step; when it says no, stop. `now`: the database's clock.
    """

    def __init__(
        self,
        engine: Engine,
        client: EncryptorClient,
        config: SchedulerConfig,
        leads: Callable[[], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._client = client
        self._config = config
        self._leads = leads
        self._now = now
        self._lead: Lead | None = None
        self._streams: list[rekey.StreamCycles] = []
        self._sealed_per_s = MARKED_PER_S
        self._noted: dict[tuple[int, int], datetime] = {}

    def step(self) -> None:
        """Take every product a step further."""
        now = self._now()
        rotations = rekey.read_rotations(self._engine)
        self._streams = rekey.stream_cycles(self._engine, now)
        self._sealed_per_s = sealing_rate(rotations)
        if self._lead is None:
            self.measure()
        lead = self._config.prepare_ahead.delta
        if self._lead is not None:
            lead = max(lead, self._lead.delta)
        by_epoch = {(one.product_id, one.seal_epoch): one for one in rotations}
        chains = rotation.read_chains(self._engine)
        for _, group in groupby(chains, key=lambda chain: chain.product_id):
            steps = next_steps(
                list(group), by_epoch, now, self._config.product_key_period.delta, lead
            )
            for step in steps:
                if not self._leads():
                    return
                self._take(step, now)
        metrics.tell_rotations(rotations, self._config.air_cycles)

    def measure(self) -> None:
        """How long a re-key of the whole population takes at present."""
        lead = lead_time(
            rotation.population(self._engine),
            slowest_cycle_s(self._streams),
            self._config.air_cycles,
            self._sealed_per_s,
        )
        was_short, self._lead = self.shortfall(), lead
        metrics.LEAD_NEEDED_S.set(lead.delta.total_seconds())
        if (short := self.shortfall()) is not None and was_short is None:
            log.warning("lead time too short", reason=short)

    def shortfall(self) -> str | None:
        """Why boxes are given the next key earlier than configured; None when they are not."""
        if self._lead is None or self._lead.delta <= self._config.prepare_ahead.delta:
            return None
        needed = self._lead.delta.total_seconds()
        period = float(self._config.product_key_period)
        if needed >= period:
            return (
                f"a re-key takes {needed:.0f} s on this bandwidth, scheduler.product_key_period is"
                f" {period:.0f} s: keys change as fast as boxes can be told, and no faster"
            )
        return (
            f"a re-key takes {needed:.0f} s ({self._lead.sealing_s:.0f} s to seal,"
            f" {self._lead.airing_s:.0f} s for {self._config.air_cycles} cycles on air);"
            f" scheduler.prepare_ahead is {float(self._config.prepare_ahead):.0f} s: boxes are"
            " given the next key earlier than it says"
        )

    def _take(self, step: Step, now: datetime) -> None:
        match step:
            case PrepareEpoch(chain=chain, switch_at=switch_at):
                rotation.prepare_next_epoch(self._engine, chain, switch_at)
                self._tell("prepared", chain.product_id, switch_at)
            case PrepareChain(chain=chain, switch_at=switch_at):
                begin_chain(
                    self._engine,
                    self._client,
                    chain,
                    epochs=self._config.chain_epochs,
                    switch_at=switch_at,
                )
                self._tell("prepared", chain.product_id, switch_at)
            case BeginRekey(chain=chain):
                rekey.begin_rotation(self._engine, chain, now)
            case MarkBoxes(chain=chain, progress=progress):
                count = rekey.mark_chunk(self._engine, progress, chain, now, _CHUNK)
                metrics.MARKED.labels("rekey").inc(count)
                self._estimate(chain, progress, now)
            case CheckBoxes(chain=chain, progress=progress):
                for _ in range(_CHECKED_AT_ONCE):
                    found = rekey.check_chunk(self._engine, progress, chain, now, _CHUNK)
                    if found < _CHUNK or not self._leads():
                        break
                self._estimate(chain, progress, now)
            case WatchAir(chain=chain, progress=progress):
                self._watch(chain, progress, now)

    def _watch(self, chain: rotation.Chain, progress: rekey.Progress, now: datetime) -> None:
        aired = airing(progress, self._streams)
        if may_switch(chain, aired.cycles, self._config.air_cycles, now):
            if rotation.go_live(self._engine, chain, now):
                self._tell("switched", chain.product_id, now)
            return
        self._estimate(chain, progress, now, aired.cycles_from, aired.cycles)

    def _estimate(
        self,
        chain: rotation.Chain,
        progress: rekey.Progress,
        now: datetime,
        cycles_from: Mapping[str, float] | None = None,
        cycles_aired: float = 0.0,
    ) -> None:
        assert chain.switch_at is not None  # noqa: S101 (it is prepared)
        key = (progress.product_id, progress.seal_epoch)
        began = progress.cycles_from if cycles_from is None else cycles_from
        if began == progress.cycles_from and now - self._noted.get(key, _LONG_AGO) < _NOTED_EVERY:
            return
        self._noted[key] = now
        ends_at = expected_end(
            progress,
            now,
            switch_at=chain.switch_at,
            cycles=self._config.air_cycles,
            cycle_s=slowest_cycle_s(self._streams),
            sealed_per_s=self._sealed_per_s,
        )
        rekey.note_airing(self._engine, progress, began, cycles_aired, ends_at)

    @staticmethod
    def _tell(what: str, product_id: int, at: datetime) -> None:
        metrics.KEY_STEPS.labels(what).inc()
        log.info("product key", step=what, product_id=product_id, switch_at=at.isoformat())
