"""Which orders share a group."""

import asyncio
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from portcullis.gateway import writer
from portcullis.gateway.writer import Writer
from portcullis.store.orders import Accepted, NewRequest, Result

CLIENTS, ROUNDS, WRITE_S = 8, 4, 0.2
ORDER = NewRequest("sms", "t", "rehit", {}, device_id=1)


def test_who_has_just_been_answered_shares_the_next_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that ask again and again are written together, not in two halves by turns."""
    monkeypatch.setattr(writer, "_MOST_S", WRITE_S)
    groups: list[int] = []
    begun = threading.Event()

    def apply(group: Sequence[NewRequest]) -> list[Result]:
        groups.append(len(group))
        begun.set()
        time.sleep(WRITE_S)  # as a database takes
        return [Accepted("id", datetime.now(UTC))] * len(group)

    async def play() -> None:
        one = Writer(apply, 10_000)

        async def client() -> None:
            for _ in range(ROUNDS):
                await one.submit([ORDER])

        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS // 2):
                tasks.create_task(client())
            await asyncio.to_thread(begun.wait)
            for _ in range(CLIENTS // 2):
                tasks.create_task(client())
        await one.stop(1)

    asyncio.run(play())
    assert sum(groups) == CLIENTS * ROUNDS
    assert groups.count(CLIENTS) >= ROUNDS - 2
