"""Where an order is, derived from what the tables say."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from portcullis.gateway.status import derive, encrypted_at, on_air_at
from portcullis.store.reads import Airing, Trail

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EARLIER, LATER = NOW - timedelta(minutes=5), NOW + timedelta(days=1)


def trail(**known: Any) -> Trail:  # noqa: ANN401 (fields of many types)
    """An order with number 5."""
    return Trail(now=NOW, wanted=5, **known)


def sealed(wanted: int = 5, aired: datetime | None = None) -> Airing:
    """EMMs that cover orders up to `wanted`."""
    return Airing(wanted, EARLIER, aired)


@pytest.mark.parametrize(
    ("known", "status"),
    [
        ({}, "accepted"),
        ({"failed": "no key"}, "failed"),
        ({"airing": sealed()}, "encrypted"),
        ({"airing": sealed(9)}, "encrypted"),
        ({"airing": sealed(aired=EARLIER)}, "on_air"),
        ({"airing": sealed(), "failed": "a later order's"}, "encrypted"),
        # Replaced and sealed together with what replaced it.
        ({"airing": sealed(7), "replaced_by": 6}, "superseded"),
        ({"airing": sealed(6, EARLIER), "replaced_by": 6}, "superseded"),
        # Replaced while sealed, the replacement not sealed yet: it may still be aired.
        ({"airing": sealed(), "replaced_by": 6}, "encrypted"),
        ({"airing": sealed(), "replaced_by": 6, "replacing_airing": sealed(6)}, "superseded"),
        # First aired by the EMM that replaced it.
        (
            {
                "airing": sealed(5, EARLIER),
                "replaced_by": 6,
                "replacing_airing": sealed(6, EARLIER),
            },
            "superseded",
        ),
        # Aired before it was replaced: on air it was.
        (
            {"airing": sealed(5, EARLIER), "replaced_by": 6, "replacing_airing": sealed(6, NOW)},
            "on_air",
        ),
        ({"airing": sealed(5, EARLIER), "replaced_by": 6}, "on_air"),
        ({"replaced_by": 6}, "accepted"),
        ({"ends_at": NOW}, "expired"),
        ({"ends_at": LATER}, "accepted"),
        ({"airing": sealed(aired=EARLIER), "ends_at": EARLIER}, "expired"),
        # A message removed before it was sealed.
        ({"is_withdrawn_unsealed": True, "replaced_by": 6, "sealed": 5}, "accepted"),
        ({"is_withdrawn_unsealed": True, "replaced_by": 6, "sealed": 6}, "superseded"),
        # Its removal: nothing is left to take off the air.
        ({"is_withdrawn_unsealed": True, "sealed": 5}, "expired"),
    ],
)
def test_status_follows_from_the_trail(known: dict[str, Any], status: str) -> None:
    """Each line is a stage of an order's life."""
    assert derive(trail(**known)) == status


def test_times_are_those_of_the_order_itself() -> None:
    """What was overtaken before it was sealed was neither encrypted nor on air."""
    overtaken = trail(airing=sealed(7, NOW), replaced_by=6)
    assert (encrypted_at(overtaken), on_air_at(overtaken)) == (None, None)
    aired = trail(airing=sealed(5, NOW))
    assert (encrypted_at(aired), on_air_at(aired)) == (EARLIER, NOW)
