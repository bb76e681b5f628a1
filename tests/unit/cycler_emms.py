"""EMMs as rows for the cycler's tests."""

from portcullis.store.feed import AirableEmm


def section_of(payload: bytes) -> bytes:
    """A section of table_id 0x82 with this payload."""
    return bytes((0x82, 0x70 | len(payload) >> 8, len(payload) & 0xFF)) + payload


def emm_row(
    device_id: int = 1,
    message_id: int = 0,
    part: int = 1,
    *,
    parts: int = 1,
    number: int = 1,
    revision: int | None = None,
    cause: str = "order",
    size: int = 100,
    starts_at: float | None = None,
    ends_at: float | None = None,
    first_aired_at: float | None = None,
    ordered_at: float | None = None,
) -> AirableEmm:
    """A row of `emms`, by default a new order's."""
    payload = device_id.to_bytes(5) + number.to_bytes(8) + bytes(size - 16)
    return AirableEmm(
        device_id=device_id,
        message_id=message_id,
        part=part,
        parts=parts,
        number=number,
        covers=number,
        cause=cause,
        revision=number if revision is None else revision,
        tombstone=False,
        section=section_of(payload),
        starts_at=starts_at,
        ends_at=ends_at,
        first_aired_at=first_aired_at,
        ordered_at=ordered_at,
    )
