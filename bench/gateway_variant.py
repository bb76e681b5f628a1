"""Baselines of `gateway`: `python -m bench.gateway_variant pool|none gateway --config FILE`.

The gateway as it is but for who commits: sixteen threads, each order in a transaction of its own
and in a chain of evidence of its thread's; or nobody.
"""

import asyncio
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import portcullis.gateway.main
from portcullis.cli.main import main
from portcullis.store.orders import Accepted, NewRequest, Result

POOL = 16


class NoDatabase:
    """Accepts whatever is valid."""

    is_alive = True
    denied = None

    def __init__(self, *_: object) -> None:
        self.ended = asyncio.Event()

    async def submit(self, requests: Sequence[NewRequest]) -> list[Result]:
        """Answer as the writer does once it has committed."""
        return [Accepted(uuid4().hex, datetime.now(UTC)) for _ in requests]

    async def stop(self, _within_s: float) -> None:
        """Nothing is under way."""
        self.ended.set()


class Pool(NoDatabase):
    """A commit per order."""

    def __init__(self, apply: "partial[list[Result]]", _max_waiting: int) -> None:
        super().__init__()
        self._apply: Callable[..., list[Result]] = partial(apply.func, *apply.args)
        self._threads = ThreadPoolExecutor(POOL)

    async def submit(self, requests: Sequence[NewRequest]) -> list[Result]:
        """Commit each."""
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(self._threads, self._commit, one) for one in requests]
        return await asyncio.gather(*jobs)

    def _commit(self, request: NewRequest) -> Result:
        return self._apply([request], writer=f"bench:{threading.get_ident()}")[0]


if __name__ == "__main__":
    writers: dict[str, Any] = {"pool": Pool, "none": NoDatabase}
    portcullis.gateway.main.Writer = writers[sys.argv.pop(1)]  # type: ignore[misc]  # the baseline
    main()
