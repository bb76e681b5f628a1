"""docs/security.md: every claim names a test that exists."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
DOCUMENT = (TESTS.parent / "docs" / "security.md").read_text(encoding="utf-8")
CLAIMS = [
    line
    for line in DOCUMENT.split("## A curious operator")[1].splitlines()
    if line.startswith("|") and line.strip("|- ")
]


def test_every_claim_names_a_test() -> None:
    """In its second column."""
    assert len(CLAIMS) > 20
    assert [line for line in CLAIMS if "`test_" not in line.rsplit("|", 2)[1]] == []


def test_every_named_test_exists_and_says_something() -> None:
    """As a function of the suite; a name that was changed is to be changed here too."""
    there = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    named = set(re.findall(r"`(test_\w+)`", DOCUMENT))
    assert named - there == set()
