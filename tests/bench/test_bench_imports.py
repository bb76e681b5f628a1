"""Each benchmark fits the code it measures: what it names is there."""

from importlib import import_module

import pytest

from bench.report import NAMES

WITH_A_PEER_OF_ITS_OWN = {"envelope"}  # Tink, which the benchmarks alone install


@pytest.mark.parametrize("name", sorted(NAMES.keys() - WITH_A_PEER_OF_ITS_OWN))
def test_a_benchmark_can_be_loaded(name: str) -> None:
    """Type checks do not cover it."""
    assert callable(import_module(f"bench.{name.replace('-', '_')}").run)
