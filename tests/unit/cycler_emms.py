"""EMMs as rows for the cycler's tests."""

from portcullis.store.airable import AirableEmm


def section_of(
    device_id: int, number: int, size: int, place: int = 0x11, *, message: bool = False
) -> bytes:
    """A section of `size` bytes: the header of docs/emm-format.md, with part and parts; zeros."""
    length = 0x7000 | (size - 3)
    kind = bytes((0x12 if message else 0x11, place))
    header = b"\x82" + length.to_bytes(2) + device_id.to_bytes(5) + kind
    return header + bytes(2) + number.to_bytes(4) + bytes(size - 16)


def emm_row(
    device_id: int = 1,
    message_id: int = 0,
    part: int = 1,
    *,
    parts: int = 1,
    number: int | None = None,
    revision: int | None = None,
    cause: str = "order",
    size: int = 100,
    starts_at: float | None = None,
    ends_at: float | None = None,
    first_aired_at: float | None = None,
    ordered_at: float | None = None,
) -> AirableEmm:
    """A row of `emms`, by default a new order's."""
    if number is None:
        number = message_id or 1
    place = 0x11 if message_id else part << 4 | parts
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
        section=section_of(device_id, number, size, place, message=bool(message_id)),
        starts_at=starts_at,
        ends_at=ends_at,
        first_aired_at=first_aired_at,
        ordered_at=ordered_at,
    )
