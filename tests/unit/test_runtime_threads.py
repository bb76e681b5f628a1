"""Blocking calls beside the event loop."""

import asyncio
import threading

import pytest

from portcullis.runtime.threads import in_thread


def test_calls_one_after_the_other_share_a_thread_and_one_that_hangs_holds_its_own_alone() -> None:
    """What another has raised is heard by who awaits it, and costs the thread nothing."""
    go_on = threading.Event()

    async def scenario() -> None:
        first = await in_thread(threading.get_ident)
        with pytest.raises(ZeroDivisionError):
            await in_thread(lambda: 1 // 0)
        assert await in_thread(threading.get_ident) == first
        hanging = asyncio.create_task(in_thread(go_on.wait))
        await asyncio.sleep(0)
        others = {await in_thread(threading.get_ident) for _ in range(3)}
        assert len(others) == 1
        assert first not in others
        go_on.set()
        assert await hanging

    asyncio.run(scenario())
