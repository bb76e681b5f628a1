"""Where an order is (pure): from what the tables say to one word."""

from datetime import datetime
from typing import Literal

from portcullis.store.reads import Trail

Status = Literal["accepted", "encrypted", "on_air", "superseded", "expired", "failed"]


def derive(trail: Trail) -> Status:
    """Say where an accepted order is."""
    if _is_superseded(trail):
        return "superseded"
    if trail.ends_at is not None and trail.ends_at <= trail.now:
        return "expired"
    if trail.airing is not None:
        return "encrypted" if trail.airing.first_aired_at is None else "on_air"
    is_removal = trail.is_withdrawn_unsealed and trail.replaced_by is None
    if is_removal and trail.sealed >= trail.wanted:
        return "expired"  # nothing is left to take off the air
    return "accepted" if trail.failed is None else "failed"


def encrypted_at(trail: Trail) -> datetime | None:
    """When the order's effect was sealed; None where it went into no EMM."""
    return trail.airing.sealed_at if trail.airing and not _was_overtaken(trail) else None


def on_air_at(trail: Trail) -> datetime | None:
    """When the order's effect was first aired; None where it never was."""
    if trail.airing is None or _is_superseded(trail):
        return None
    return trail.airing.first_aired_at


def _is_superseded(trail: Trail) -> bool:
    """Whether a later order replaced the effect before it was aired."""
    airing, replacing = trail.airing, trail.replacing_airing
    if trail.replaced_by is None:
        return False
    if airing is None:
        return trail.is_withdrawn_unsealed and trail.sealed >= trail.replaced_by
    if _was_overtaken(trail):
        return True
    if replacing is None:
        return False
    return airing.first_aired_at is None or airing.first_aired_at == replacing.first_aired_at


def _was_overtaken(trail: Trail) -> bool:
    """Whether what replaced the order was sealed in the order's own first EMM."""
    return (
        trail.airing is not None
        and trail.replaced_by is not None
        and trail.replaced_by <= trail.airing.wanted
    )
