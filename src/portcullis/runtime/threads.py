"""Blocking calls beside the event loop, on threads that nothing waits for when they hang."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Worker:
    """A daemon thread that makes one call after the other; idle in between."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        threading.Thread(target=self._work, name="in_thread", daemon=True).start()

    def make(self, call: Callable[[], None]) -> None:
        """Have it make a call that raises nothing; it is idle."""
        self._calls.put(call)

    def _work(self) -> None:
        while True:
            self._calls.get()()


_idle: list[_Worker] = []
os.register_at_fork(after_in_child=_idle.clear)  # a fork has none of the threads


async def in_thread(call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Await a blocking call on a daemon thread that has nothing else to do.

    Unlike `asyncio.to_thread`: a call that hangs, in a database that takes connections and
    answers nothing, neither takes a thread from a pool that others wait for nor keeps the
    process from ending. Each caller has one call under way at a time, which bounds the threads;
    they are kept, since to begin one costs as much as a short call.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_T] = loop.create_future()
    worker = _idle.pop() if _idle else _Worker()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if answer.cancelled():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # _T, where there is no error

    def work() -> None:
        result: _T | None = None
        failure: BaseException | None = None
        try:
            result = call(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 (whoever awaits the call gets it)
            failure = error
        _idle.append(worker)
        with suppress(RuntimeError):  # the loop has been closed: nobody awaits it
            loop.call_soon_threadsafe(settle, result, failure)

    worker.make(work)
    return await answer
