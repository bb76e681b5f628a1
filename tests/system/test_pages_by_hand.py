"""README and tutorial, as a newcomer types them: each block in its terminal."""

import re
from pathlib import Path

import pytest

from tests.system.newcomer import Desk, blocks


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Where a newcomer sits down."""
    return Desk(tmp_path)


@pytest.mark.timeout(180)
def test_the_readme_brings_an_order_to_a_box(desk: Desk) -> None:
    """With its three blocks, and nothing else."""
    up, watch, orders = blocks("README.md", "Try it by hand")
    with desk.terminal(up) as head_end:
        head_end.until("The head-end is up")
        with desk.terminal(watch) as boxes:
            boxes.until("listening on")
            accepted = desk.run([orders])
            assert accepted.count('"accepted_at"') == 4  # three answers, and where the second is
            boxes.until(
                "1001 active", "1001 gained product 101", "1001 shows message 1: 'Welcome!'"
            )


@pytest.mark.timeout(240)
def test_the_tutorial_shows_what_it_says(desk: Desk) -> None:
    """From the first order to the proof of the record."""
    set_up, up = blocks("docs/tutorial.md", "Start a head-end")[0].splitlines(keepends=True)
    assert set_up == "make setup && . .venv/bin/activate\n"
    [watch] = blocks("docs/tutorial.md", "Watch the boxes")
    token, orders, refused = blocks("docs/tutorial.md", "Be the SMS")
    life, aired = blocks("docs/tutorial.md", "Follow the order")
    [take_away] = blocks("docs/tutorial.md", "Take the right away")
    [record] = blocks("docs/tutorial.md", "Look at the keys and the record")
    with desk.terminal(up) as head_end:
        head_end.until("The head-end is up")
        with desk.terminal(watch) as boxes:
            boxes.until("listening on")
            first, *rest = orders.splitlines(keepends=True)
            answers = desk.run([token, first])
            boxes.until("1001 active")  # else both orders may be in one state
            answers += desk.run([token, "".join(rest), refused])
            assert answers.count('"status":"accepted"') == 4
            assert '"code":"transaction_conflict"' in answers
            assert '"code":"unknown_product"' in answers
            boxes.until("1001 gained product 101", "1001 shows message 1: 'Welcome!'")
            assert "on_air_at: 2" in desk.run([life])
            decoded = desk.run([aired])
            assert decoded.count("state for device 1001") > 1
            assert re.search(r"entitlement 1 product_id +0065 +product 101", decoded)
            desk.run([token, take_away])
            boxes.until("1001 lost product 101")
        desk.run([record])
