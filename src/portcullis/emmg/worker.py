"""One worker: claim, read, seal, finish, again.

Where a device spoils a batch, the batch is halved until the device stands alone; it is tried
again, and given up after MAX_TRIES, while its neighbours go on. Faults of database and encryptor
are nobody's fault: what was claimed is given back, and no try is counted.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol
from uuid import uuid4

from sqlalchemy import Engine
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as NoConnectionFreeError

from portcullis.emmg import metrics
from portcullis.emmg.batch import Batch, build_batch, read_reply
from portcullis.emmg.config import EmmgConfig
from portcullis.runtime.logging import get_logger
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import (
    EncryptorDeclinesError,
    EncryptorError,
    EncryptorUnavailableError,
)
from portcullis.store.database import chunked, reason_of
from portcullis.store.failures import give_back, give_up_or_retry
from portcullis.store.queue import is_any_due
from portcullis.store.to_seal import read_orders
from portcullis.store.work import Claimed, claim, claimed, finish

MAX_CLOCK_DIFFERENCE_S = 300.0
_RETRY_AFTER = timedelta(seconds=1)
_AGAIN_S = 0.4  # after a fault: what was away is asked as soon again
_GROWTH = 8  # of batches after one that was sealed: what has waited meanwhile is soon caught up
_MAX_DOUBLINGS = 6
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

    def seal_states(self, request: pb.SealStatesRequest) -> pb.SealStatesReply:
        """Seal states, each answered on its own; raises EncryptorError."""

    def check(self) -> str | None:
        """Why no encryptor answers now; None where one does."""


class Worker:
    """Works until `stopping` is set; each round is safe to be killed in."""

    def __init__(
        self, engine: Engine, sealer: Sealer, config: EmmgConfig, stopping: threading.Event
    ) -> None:
        self._engine, self._sealer, self._config = engine, sealer, config
        self._stopping = stopping
        self.trouble: str | None = None
        """Why the last round failed; None when it did not."""
        self.token: str | None = None
        """Under which the batch at hand is claimed."""
        self._limit = config.batch
        """Devices to claim: fewer after a batch that took the encryptor away."""
        self._goes_on = False
        """Whether there may be more to claim at once, as the last round found all it asked for."""
        self._is_idle = True
        """Whether the last round found nothing: then it is asked before it is claimed."""

    def run(self) -> None:
        """Round after round; waits for `poll` unless there was as much to do as a round takes.

        So orders that come one by one share a round's statements.
        """
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
            if not (worked and self._goes_on):
                self._stopping.wait(_about(_AGAIN_S) if self.trouble else float(self._config.poll))

    def _fault(self, part: str, error: Exception) -> bool:
        metrics.FAULTS.labels(part).inc()
        self.trouble = f"{part}: {reason_of(error)}"
        log.warning("round_failed", part=part, error=str(error)[:300])
        return False

    def round(self) -> bool:
        """One batch; returns whether there was anything to do.

        A batch that a fault of the database has cut off is taken up again, if still claimed.
        """
        if self._doubts and (away := self._sealer.check()) is not None:
            raise EncryptorUnavailableError(away)  # nothing is claimed for it
        started = time.monotonic()
        if self.token is None:
            hold = self._config.claim_hold.delta
            if self._is_idle and not is_any_due(self._engine, hold):
                return False
            self.token = uuid4().hex
            claims = claim(self._engine, self.token, self._limit, hold)
        else:
            claims = claimed(self._engine, self.token)
        self._goes_on, self._is_idle = len(claims) >= self._limit, not claims
        if claims:
            self._work_on(claims, self.token)
            self._limit = min(self._config.batch, _GROWTH * self._limit)
            metrics.BATCH_S.observe(time.monotonic() - started)
        self.token = None
        return bool(claims)

    @property
    def _doubts(self) -> bool:
        """Whether a device may be what takes the encryptor away."""
        return self._limit < self._config.batch

    def _work_on(self, claims: Sequence[Claimed], token: str) -> None:
        ids = [claimed.device_id for claimed in claims]
        try:
            spoiling = self._halve(claims, token)
        except (EncryptorUnavailableError, ClocksDisagreeError) as error:
            is_away = not isinstance(error, EncryptorDeclinesError | ClocksDisagreeError)
            if is_away and self._doubts and len(ids) == 1:
                # It answered just before: another device would have been sealed.
                self._refuse(claims, token, {ids[0]: "the encryptor goes away over it"})
            else:
                give_back(self._engine, token, ids, str(error), _RETRY_AFTER)
            if is_away:
                self._limit = max(1, len(ids) // 2)
            self.token = None
            raise
        self._refuse(claims, token, spoiling)

    def _halve(self, claims: Sequence[Claimed], token: str) -> dict[int, str]:
        """Seal and write a batch, in halves where it fails; returns device → why it alone does."""
        try:
            self._seal_and_write(claims, token)
        except EncryptorUnavailableError:
            raise
        except EncryptorError as error:
            reason, why = "the encryptor fails on it", str(error)
        except StatementError as error:
            if isinstance(error, DBAPIError) and not isinstance(error, DataError | IntegrityError):
                raise
            reason, why = "the database refuses it", str(error.orig)
        except (ValueError, TypeError, OverflowError) as error:
            reason, why = "its orders are not what they should be", repr(error)
        else:
            return {}
        if len(claims) == 1:
            log.error("device_spoils", device_id=claims[0].device_id, reason=why[:300])
            return {claims[0].device_id: reason}
        middle = len(claims) // 2
        return self._halve(claims[:middle], token) | self._halve(claims[middle:], token)

    def _seal_and_write(self, claims: Sequence[Claimed], token: str) -> None:
        orders = read_orders(self._engine, [claimed.device_id for claimed in claims])
        batch = build_batch(claims, orders, self._config.ca_system_id)
        if batch.waiting:
            reason = next(iter(batch.waiting.values()))
            give_back(self._engine, token, batch.waiting.keys(), reason, _KEY_WAIT)
        finished, refused = read_reply(batch, *self._seal(batch, orders.now))
        written = finish(self._engine, token, finished)
        causes = Counter(
            emm.cause for done in finished if done.claimed.device_id in written for emm in done.emms
        )
        for cause, count in causes.items():
            metrics.SEALED.labels(cause).inc(count)
        self._refuse(claims, token, refused)

    def _refuse(self, claims: Sequence[Claimed], token: str, refused: Mapping[int, str]) -> None:
        """Have devices tried again, each time after twice as long, or give them up."""
        metrics.REFUSED.inc(len(refused))
        tries = {one.device_id: one.tries for one in claims}
        for device_id, reason in refused.items():
            log.error("device_refused", device_id=device_id, reason=reason)
            again_after = _RETRY_AFTER * _about(2.0 ** min(tries[device_id] - 1, _MAX_DOUBLINGS))
            give_up_or_retry(self._engine, token, [device_id], reason, again_after)

    def _seal(
        self, batch: Batch, database_now: datetime
    ) -> tuple[pb.SealStatesReply, list[pb.Sealed]]:
        """Have all states and items sealed; a device may have many items: in several calls."""
        states = pb.SealStatesReply()
        answers: list[pb.Sealed] = []
        if batch.stated:
            states = self._sealer.seal_states(batch.states)
            _check_clocks(database_now.timestamp(), states.clock_us / 1e6)
        for items in chunked(batch.items, self._config.batch):
            reply = self._sealer.seal(self._config.ca_system_id, (), items)
            _check_clocks(database_now.timestamp(), reply.clock_us / 1e6)
            answers += reply.items
        return states, answers


def _about(seconds: float) -> float:
    """Half to one and a half of it: whoever fell over the same device parts ways with it."""
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311 (jitter)  # nosec B311


class ClocksDisagreeError(Exception):
    """Sealing stops: a number made by a wrong clock would lock boxes out for as long."""


def _check_clocks(database: float, encryptor: float) -> None:
    clocks = (database, encryptor, time.time())
    difference = max(clocks) - min(clocks)
    metrics.CLOCK_DIFFERENCE.set(difference)
    if difference > MAX_CLOCK_DIFFERENCE_S:
        raise ClocksDisagreeError(f"the clocks differ by {difference:.0f} s; sealing has stopped")
