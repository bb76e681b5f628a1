"""The baselines of `gateway` stand where the writer does."""

import asyncio
from functools import partial

import pytest

from bench.gateway_variant import NoDatabase, Pool
from portcullis.gateway.writer import Writer
from portcullis.store.orders import apply_requests


@pytest.mark.parametrize("baseline", [NoDatabase, Pool])
def test_a_baseline_has_all_that_the_gateway_looks_at(baseline: type[NoDatabase]) -> None:
    """Where it lacks a name, its gateway is never ready."""

    async def play() -> None:
        writer = Writer(lambda _group: [], 10_000)
        names = {name for name in dir(writer) if not name.startswith("_")}
        assert names <= set(dir(baseline(partial(apply_requests), 10_000)))
        await writer.stop(1)

    asyncio.run(play())
