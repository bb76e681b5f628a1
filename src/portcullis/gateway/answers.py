"""What the gateway answers, as structs: also the source of the OpenAPI document."""

from datetime import datetime
from typing import Literal

import msgspec

from portcullis.gateway.orders import DeviceId, MessageId, ProductId
from portcullis.gateway.permits import Permit
from portcullis.gateway.status import Status, derive, encrypted_at, on_air_at
from portcullis.store.reads import DeviceRecord, RequestRecord


class OrderAccepted(msgspec.Struct, frozen=True, omit_defaults=True):
    """The order is committed."""

    request_id: str
    transaction_id: str
    status: Literal["accepted"]
    accepted_at: datetime
    message_id: int | None = None


class RequestState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a request is. `accepted_at` is when it was received where it was refused."""

    request_id: str
    kind: str
    status: Status | Literal["refused"]
    accepted_at: datetime
    transaction_id: str | None = None
    device_id: DeviceId | None = None
    message_id: MessageId | None = None
    encrypted_at: datetime | None = None
    on_air_at: datetime | None = None
    superseded_by: str | None = None
    error: str | None = None
    code: str | None = None
    detail: str | None = None


class Entitlement(msgspec.Struct, frozen=True):
    """A window held. ends_at null: open."""

    product_id: ProductId
    starts_at: datetime
    ends_at: datetime | None


class Message(msgspec.Struct, frozen=True):
    """A text that is shown, or will be."""

    message_id: MessageId
    text: str
    duration_s: int
    position: int
    priority: int
    starts_at: datetime
    expires_at: datetime


class DeviceState(msgspec.Struct, frozen=True):
    """A device as the head-end holds it. number: of its last state EMM, 0 before the first."""

    device_id: DeviceId
    status: Literal["active", "removed"]
    entitlements: list[Entitlement]
    number: int
    last_aired_at: datetime | None
    messages: list[Message]


class Product(msgspec.Struct, frozen=True):
    """A product of the catalogue."""

    product_id: ProductId
    name: str


class Catalogue(msgspec.Struct, frozen=True):
    """Every product."""

    products: list[Product]


class BatchLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one line of a batch."""

    line: int
    status: Literal["accepted", "refused"]
    code: str | None = None
    detail: str | None = None
    request_id: str | None = None
    message_id: int | None = None


def request_state(record: RequestRecord) -> RequestState:
    """Tell where a request is."""
    trail = record.trail
    status: Status | Literal["refused"] = "accepted" if trail is None else derive(trail)
    if record.outcome != "accepted":
        status = "refused"
    return RequestState(
        request_id=record.request_id,
        kind=record.kind,
        status=status,
        accepted_at=record.received_at,
        transaction_id=record.transaction_id,
        device_id=None if record.device_id is None else str(record.device_id),
        message_id=record.message_id,
        encrypted_at=None if trail is None else encrypted_at(trail),
        on_air_at=None if trail is None else on_air_at(trail),
        superseded_by=trail.replacing_request_id if trail and status == "superseded" else None,
        error=trail.failed if trail and status == "failed" else None,
        code=record.outcome if status == "refused" else None,
        detail=record.detail,
    )


def device_state(device_id: int, record: DeviceRecord, permit: Permit) -> DeviceState:
    """Tell what a device holds of the products that the client may touch."""
    return DeviceState(
        device_id=str(device_id),
        status="active" if record.active else "removed",
        entitlements=[
            Entitlement(row.product_id, row.starts_at, row.ends_at)
            for row in record.entitlements
            if permit.allows_product(row.product_id)
        ],
        number=record.number,
        last_aired_at=record.last_aired_at,
        messages=[
            Message(
                row.message_id,
                row.text,
                row.duration_s,
                row.position,
                row.priority,
                row.starts_at,
                row.expires_at,
            )
            for row in record.messages
        ],
    )
