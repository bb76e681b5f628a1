"""The proofs that load the machine run one after the other, also where they are run alone."""

import os

import pytest


def test_a_proof_has_its_group(request: pytest.FixtureRequest) -> None:
    """pytest-xdist has seen the mark that conftest.py gives: it says so behind the test's id."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    assert request.node.nodeid.endswith("@faults") == is_worker
