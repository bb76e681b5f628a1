"""One worker: claim, read, seal, finish, again."""

import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import uuid4

from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFreeError

from portcullis.emmg import metrics
from portcullis.emmg.batch import Batch, build_batch, read_reply
from portcullis.emmg.config import EmmgConfig
from portcullis.runtime.logging import get_logger
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorError
from portcullis.store.work import (
    Claimed,
    claim,
    claimed,
    finish,
    give_back,
    give_up_or_retry,
    read_orders,
)

MAX_CLOCK_DIFFERENCE_S = 300.0
_RETRY_AFTER = timedelta(seconds=1)
_KEY_WAIT = timedelta(milliseconds=200)

log = get_logger("portcullis.emmg")


class Sealer(Protocol):
    """What a worker needs of the encryptor's client."""

    def seal(
        self,
        ca_system_id: int,
        product_keys: Sequence[pb.SealedKey],
        items: Sequence[pb.SealItem],
    ) -> pb.SealReply:
        """Seal a batch, each item answered on its own; raises EncryptorError."""


class Worker:
    """Works until `stopping` is set; each round is safe to be killed in."""

    def __init__(
        self, engine: Engine, sealer: Sealer, config: EmmgConfig, stopping: threading.Event
    ) -> None:
        self._engine, self._sealer, self._config = engine, sealer, config
        self._stopping = stopping
        self.trouble: str | None = None
        """Why the last round failed; None when it did not."""
        self._token: str | None = None

    def run(self) -> None:
        """Round after round; waits for `poll` when there was nothing to do."""
        while not self._stopping.is_set():
            try:
                worked = self.round()
                self.trouble = None
            except EncryptorError as error:
                worked = self._fault("encryptor", error)
            except SQLAlchemyError as error:
                if not isinstance(error, OperationalError | InterfaceError | NoConnectionFreeError):
                    log.exception("statement_failed")
                worked = self._fault("database", error)
            except ClocksDisagreeError as error:
                worked = self._fault("clocks", error)
            if not worked:
                self._stopping.wait(1.0 if self.trouble else float(self._config.poll))

    def _fault(self, part: str, error: Exception) -> bool:
        metrics.FAULTS.labels(part).inc()
        self.trouble = f"{part}: {type(error).__name__}"
        log.warning("round_failed", part=part, error=str(error)[:300])
        return False

    def round(self) -> bool:
        """One batch; returns whether there was anything to do.

        A batch that a fault of the database has cut off is taken up again, if still claimed.
        """
        started = time.monotonic()
        if self._token is None:
            self._token = uuid4().hex
            hold = self._config.claim_hold.delta
            claims = claim(self._engine, self._token, self._config.batch, hold)
        else:
            claims = claimed(self._engine, self._token)
        if claims:
            self._work_on(claims, self._token)
            metrics.BATCH_S.observe(time.monotonic() - started)
        self._token = None
        return bool(claims)

    def _work_on(self, claims: Sequence[Claimed], token: str) -> None:
        ids = [claimed.device_id for claimed in claims]
        orders = read_orders(self._engine, ids)
        batch = build_batch(claims, orders)
        if batch.waiting:
            reason = next(iter(batch.waiting.values()))
            give_back(self._engine, token, batch.waiting.keys(), reason, _KEY_WAIT)
        try:
            reply = self._seal(batch, orders.now)
        except (EncryptorError, ClocksDisagreeError) as error:
            give_back(self._engine, token, ids, str(error), _RETRY_AFTER)
            self._token = None
            raise
        finished, refused = read_reply(batch, reply)
        if refused:
            metrics.REFUSED.inc(len(refused))
            for device_id, reason in refused.items():
                log.error("device_refused", device_id=device_id, reason=reason)
                give_up_or_retry(self._engine, token, [device_id], reason, _RETRY_AFTER)
        written = finish(self._engine, token, finished)
        for done in finished:
            if done.claimed.device_id in written:
                for sealed in done.emms:
                    metrics.SEALED.labels(sealed.cause).inc()

    def _seal(self, batch: Batch, database_now: datetime) -> pb.SealReply:
        if not batch.items:
            return pb.SealReply()
        reply = self._sealer.seal(self._config.ca_system_id, batch.product_keys, batch.items)
        _check_clocks(database_now.timestamp(), reply.clock_us / 1e6)
        return reply


class ClocksDisagreeError(Exception):
    """Sealing stops: a number made by a wrong clock would lock boxes out for as long."""


def _check_clocks(database: float, encryptor: float) -> None:
    clocks = (database, encryptor, time.time())
    difference = max(clocks) - min(clocks)
    metrics.CLOCK_DIFFERENCE.set(difference)
    if difference > MAX_CLOCK_DIFFERENCE_S:
        raise ClocksDisagreeError(f"the clocks differ by {difference:.0f} s; sealing has stopped")
