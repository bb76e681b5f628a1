"""Tests that share a server are run by one worker: pytest-xdist must know their group."""

import os

import pytest


@pytest.mark.xdist_group("known")
def test_a_group_is_known_to_xdist(request: pytest.FixtureRequest) -> None:
    """It says so behind the test's id."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    assert request.node.nodeid.endswith("@known") == is_worker
