"""Claims that outlast their hold: a batch that takes long keeps its own, a dead EMMG's come due."""

import asyncio
from collections.abc import Collection, Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from portcullis.emmg.worker import Worker
from portcullis.runtime.config import Duration
from portcullis.runtime.logging import get_logger
from portcullis.runtime.threads import in_thread
from portcullis.store.database import reason_of
from portcullis.store.work import hold_on

_PARTS = 3
"""A claim is renewed so often in the time that it holds."""

log = get_logger("portcullis.emmg")


async def keep_claims(engine: Engine, workers: Sequence[Worker], hold: Duration) -> None:
    """Renew what the workers have had claimed for long, until cancelled.

    What is not renewed in time, another takes: `finish` writes only what is still claimed.
    """
    before: Collection[str] = ()
    while True:
        await asyncio.sleep(hold / _PARTS)
        now = [worker.token for worker in workers if worker.token is not None]
        if lasting := [token for token in now if token in before]:
            try:
                await in_thread(hold_on, engine, lasting, hold.delta)
            except SQLAlchemyError as error:
                log.warning("claims_not_renewed", reason=reason_of(error))
        before = now
