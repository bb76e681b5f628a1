"""Group commit: one thread writes what has arrived, so that orders share a transaction."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError

from portcullis.gateway import metrics
from portcullis.runtime.logging import get_logger
from portcullis.store.orders import (
    DatabaseDeniedError,
    DatabaseUnavailableError,
    NewRequest,
    Refused,
    Result,
)

GROUP = 500
"""Orders of one transaction."""
_MOST_S = 0.02

log = get_logger("portcullis.gateway")


def _unavailable(why: str) -> Refused:
    return Refused("unavailable", why)


UNWRITABLE = _unavailable("the order could not be written")
"""It alone: the database took its neighbours."""

_Waiting = tuple[NewRequest, "asyncio.Future[Result]"]


class Writer:
    """Hands requests to `apply` in order of arrival, many at a time."""

    def __init__(
        self, apply: Callable[[Sequence[NewRequest]], list[Result]], max_waiting: int
    ) -> None:
        self._apply = apply
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._group: list[_Waiting] = []
        self._wake_at = 1  # orders that wake the thread
        self._written_s = 0.0  # what the last group took
        self._arrived = threading.Condition()
        self._is_stopping = False
        self.denied: str | None = None
        """The right that the database denied to the last order; None when it did not."""
        self._trouble: str | None = None
        self.ended = asyncio.Event()
        """Set when the thread ends: after `stop`, else only by a bug."""
        self._thread = threading.Thread(target=self._run, name="gateway-writer", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether orders can still be written."""
        return self._thread.is_alive()

    async def submit(self, requests: Sequence[NewRequest]) -> list[Result]:
        """Wait until the requests are committed, in order; `unavailable` where they were not."""
        with self._arrived:
            free = self._max_waiting - len(self._waiting)
            if self._is_stopping or not self.is_alive or len(requests) > free:
                return [_unavailable("too many orders wait for the database")] * len(requests)
            waiting = [(request, self._loop.create_future()) for request in requests]
            self._waiting.extend(waiting)
            if len(self._waiting) >= self._wake_at:
                self._arrived.notify()
        return [await future for _, future in waiting]

    async def stop(self, within_s: float) -> None:
        """Write what has arrived, then end; what a database that hangs still has is unavailable.

        It may be committed all the same: the SMS repeats it and reads that it was.
        """
        with self._arrived:
            self._is_stopping = True
            self._arrived.notify()
        try:
            async with asyncio.timeout(within_s):
                await self.ended.wait()
        except TimeoutError:
            log.warning("the database keeps orders waiting at the stop", orders=len(self._group))
            self._give_up()

    def _run(self) -> None:
        try:
            while self._next_group():
                begun = time.monotonic()
                self._write(self._group)
                self._written_s = time.monotonic() - begun
        finally:
            # Only a bug ends up here with orders in hand: nobody may wait for ever.
            self._give_up()
            self._loop.call_soon_threadsafe(self.ended.set)

    def _give_up(self) -> None:
        with self._arrived:
            self._is_stopping = True
            left = [*self._group, *self._waiting]
            self._waiting.clear()
        self._answer(left, [_unavailable("the gateway is stopping")] * len(left))

    def _next_group(self) -> list[_Waiting]:
        """Wait for requests; empty when it is time to stop.

        Who has just been answered is about to ask again: for as many as were in sight is waited,
        at most as long as the last group took, so that they share its statements.
        """
        with self._arrived:
            in_sight = min(GROUP, len(self._group) + len(self._waiting))
            self._group = []
            self._await(1, None)
            self._await(in_sight, min(self._written_s, _MOST_S))
            size = min(GROUP, len(self._waiting))
            self._group = [self._waiting.popleft() for _ in range(size)]
            metrics.WAITING.set(len(self._waiting))
            return self._group

    def _await(self, orders: int, seconds: float | None) -> None:
        self._wake_at = orders
        self._arrived.wait_for(lambda: len(self._waiting) >= orders or self._is_stopping, seconds)

    def _write(self, group: list[_Waiting]) -> None:
        try:
            results = self._apply([request for request, _ in group])
        except DatabaseUnavailableError as error:
            metrics.GROUP_FAILURES.inc()
            is_denied = isinstance(error, DatabaseDeniedError)
            if str(error) != self._trouble:  # once: a line for each group would be a flood
                say = log.error if is_denied else log.warning
                reason = str(error.__cause__ or error).splitlines()[0]
                say("the database does not take orders: they are refused", reason=reason)
            self._trouble = str(error)
            self.denied = self._trouble if is_denied else None
            # Who waits behind them is told at once, and repeats.
            with self._arrived:
                group = [*group, *self._waiting]
                self._waiting.clear()
            # Users and tables are no business of an SMS.
            why = "the database denies the head-end a right" if is_denied else str(error)
            results = [_unavailable(why)] * len(group)
        except SQLAlchemyError as error:
            metrics.GROUP_FAILURES.inc()
            log.error(  # noqa: TRY400 (a stack would show the values)
                "orders not committed",
                orders=len(group),
                error=type(error).__name__,
            )
            if len(group) > 1:  # one of them cannot be written: the others shall not suffer
                for alone in group:
                    self._write([alone])
                return
            results = [UNWRITABLE]
        else:
            metrics.GROUPS.inc()
            if self._trouble is not None:
                log.info("the database takes orders again")
            self._trouble = self.denied = None
        self._answer(group, results)

    def _answer(self, group: Sequence[_Waiting], results: Sequence[Result]) -> None:
        def tell() -> None:
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(result)

        self._loop.call_soon_threadsafe(tell)
