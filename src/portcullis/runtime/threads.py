"""Blocking calls beside the event loop, on threads that nothing waits for when they hang."""

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Await a blocking call on a daemon thread of its own.

    Unlike `asyncio.to_thread`: a call that hangs, in a database that takes connections and
    answers nothing, neither takes a thread from a pool that others wait for nor keeps the
    process from ending. Each caller has one call under way at a time, which bounds the threads.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_T] = loop.create_future()

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
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name=f"{call!r:.60}", daemon=True).start()
    return await answer
