"""Orders as they arrive: their shapes, and from bytes to canonical values (pure)."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from portcullis.gateway.permits import MAX_DEVICE_ID, MAX_PRODUCT_ID, Caller
from portcullis.store.applying import Refusal
from portcullis.store.orders import NewRequest

MAX_TEXT_CHARS = 1000
_MAX_TRANSACTION_CHARS = 64
_LAST_TIME = 2**32 - 2
_SNIPPET_CHARS = 2000
_REQUEST_ID = re.compile("[0-9a-f]{32}")

DeviceId = Annotated[
    str,
    Meta(
        pattern="^[1-9][0-9]{0,12}$",
        description="The 5-byte unique address: a decimal string, 1 to 2^40 - 1",
        examples=["1234567890"],
    ),
]
ProductId = Annotated[int, Meta(ge=1, le=MAX_PRODUCT_ID, examples=[101])]
MessageId = Annotated[int, Meta(ge=1, le=2**63 - 1)]
TransactionId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=_MAX_TRANSACTION_CHARS,
        description="Chosen by the SMS, printable; the same id never does a thing twice",
        examples=["sms-2026-000001"],
    ),
]
Time = Annotated[
    datetime,
    Meta(
        tz=True,
        description="RFC 3339 with offset, 1970 to 2106; fractions of a second are dropped",
        examples=["2026-01-31T20:15:00+01:00"],
    ),
]
Byte = Annotated[int, Meta(ge=0, le=255)]


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    """What every order has."""

    transaction_id: TransactionId


class AddDevice(Order, frozen=True, kw_only=True, tag="adddevice"):
    """The box exists and is active; its key must have been imported."""

    device_id: DeviceId


class RemoveDevice(Order, frozen=True, kw_only=True, tag="removedevice"):
    """All rights end; the id may be added again later."""

    device_id: DeviceId


class AddEntitlement(Order, frozen=True, kw_only=True, tag="addentitlement"):
    """The window given is the window held; it replaces an earlier one."""

    device_id: DeviceId
    product_id: ProductId
    starts_at: Time | None = None
    ends_at: Time | None = None


class RemoveEntitlement(Order, frozen=True, kw_only=True, tag="removeentitlement"):
    """Revoke; one that is not held may be revoked too."""

    device_id: DeviceId
    product_id: ProductId


class GenerateOsm(Order, frozen=True, kw_only=True, tag="generateosm"):
    """Show a text on the screen. duration_s 0: until it is removed."""

    device_id: DeviceId
    text: Annotated[str, Meta(min_length=1, extra_json_schema={"maxLength": MAX_TEXT_CHARS})]
    duration_s: Annotated[int, Meta(ge=0, le=65535)]
    position: Byte | None = None
    priority: Byte | None = None
    starts_at: Time | None = None
    expires_at: Time | None = None


class RemoveOsm(Order, frozen=True, kw_only=True, tag="removeosm"):
    """Stop showing a message."""

    message_id: MessageId


class Rehit(Order, frozen=True, kw_only=True, tag="rehit"):
    """Send again now all that the box is to hold; nothing that it may see changes."""

    device_id: DeviceId


class ProductBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A product of the catalogue."""

    name: Annotated[str, Meta(min_length=1, max_length=200, examples=["Sport"])]


ORDERS: Mapping[str, tuple[type[Order], str]] = {
    "adddevice": (AddDevice, "device"),
    "removedevice": (RemoveDevice, "device"),
    "addentitlement": (AddEntitlement, "entitlement"),
    "removeentitlement": (RemoveEntitlement, "entitlement"),
    "generateosm": (GenerateOsm, "message"),
    "removeosm": (RemoveOsm, "message"),
    "rehit": (Rehit, "rehit"),
}
"""Each call: its shape, and the scope it needs."""

UNREADABLE = "unreadable"


def parse_json(raw: bytes) -> Any:  # noqa: ANN401 (whatever JSON holds)
    """Read a body; raises Refusal `malformed`."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal("malformed", f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refusal("malformed", "not a JSON object")
    return value


def read_order(caller: Caller, kind: str, raw: bytes) -> NewRequest:
    """Validate the body of one call; what is wrong stands in `refusal`."""
    try:
        fields = parse_json(raw)
    except Refusal as refusal:
        return _refused(caller, kind, raw, {}, refusal)
    if "op" in fields:  # the path says what it is
        unknown = Refusal("invalid_value", "Object contains unknown field `op`")
        return _refused(caller, kind, raw, fields, unknown)
    return _read_fields(caller, kind, raw, fields)


def read_batch_line(caller: Caller, raw: bytes) -> NewRequest:
    """Validate one line of a batch, whose `op` says what it is."""
    try:
        fields = parse_json(raw)
    except Refusal as refusal:
        return _refused(caller, UNREADABLE, raw, {}, refusal)
    kind = fields.pop("op", None)
    if not isinstance(kind, str) or kind not in ORDERS:
        no_such = Refusal("invalid_value", f"op is not one of {', '.join(ORDERS)}")
        return _refused(caller, UNREADABLE, raw, fields, no_such)
    return _read_fields(caller, kind, raw, fields)


def read_product(caller: Caller, product_id: str, raw: bytes) -> NewRequest:
    """Validate `PUT /products/{product_id}`."""
    try:
        _check_scope("product", caller)
        number = _product_number(product_id)
        _check_permit(caller, None, number)
        body = _convert(parse_json(raw), ProductBody)
    except Refusal as refusal:
        return _refused(caller, "putproduct", raw, {}, refusal)
    return NewRequest(caller.client_id, None, "putproduct", {"name": body.name}, product_id=number)


def rehit_order(client_id: str, device_id: int, by: str, transaction_id: str) -> NewRequest:
    """A re-hit that a person asks for; `by` stands in its record."""
    body = {"device_id": str(device_id), "by": by}
    return NewRequest(
        client_id,
        transaction_id,
        "rehit",
        body,
        body_hash=body_hash("rehit", body),
        device_id=device_id,
    )


def _read_fields(caller: Caller, kind: str, raw: bytes, fields: dict[str, Any]) -> NewRequest:
    shape, scope = ORDERS[kind]
    try:
        _check_scope(scope, caller)
        order = _canonical(caller, kind, _convert(fields, shape))
        _check_permit(caller, order.device_id, order.product_id)
    except Refusal as refusal:
        return _refused(caller, kind, raw, fields, refusal)
    return order


def _check_permit(caller: Caller, device_id: int | None, product_id: int | None) -> None:
    if device_id is not None and not caller.permit.allows_device(device_id):
        raise Refusal("not_permitted", f"this client may not touch device {device_id}")
    if product_id is not None and not caller.permit.allows_product(product_id):
        raise Refusal("not_permitted", f"this client may not touch product {product_id}")


def _check_scope(scope: str, caller: Caller) -> None:
    if scope not in caller.scopes:
        raise Refusal("insufficient_scope", f"this needs the scope {scope!r}")


def _product_number(text: str) -> int:
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PRODUCT_ID))
    if not is_number or not 1 <= int(text) <= MAX_PRODUCT_ID:
        raise Refusal("invalid_value", f"product_id is not 1 to {MAX_PRODUCT_ID}")
    return int(text)


def _convert(fields: Mapping[str, Any], shape: type[Any]) -> Any:  # noqa: ANN401 (the shape asked for)
    try:
        return msgspec.convert(fields, shape)
    except msgspec.ValidationError as error:
        raise Refusal("invalid_value", str(error)) from error


def _canonical(caller: Caller, kind: str, order: Order) -> NewRequest:
    """Canonical values as given: what was omitted stays omitted. Raises Refusal."""
    given = {
        name: value
        for name in order.__struct_fields__
        if (value := getattr(order, name)) is not None
    }
    if not is_transaction_id(given.pop("transaction_id")):
        raise Refusal("invalid_value", "transaction_id holds unprintable characters")
    device_id = None if "device_id" not in given else device_number(given["device_id"])
    if "device_id" in given and device_id is None:
        raise Refusal("invalid_value", f"device_id is not 1 to {MAX_DEVICE_ID}")
    times = {name: _second(name, value) for name, value in given.items() if name.endswith("_at")}
    starts_at = times.get("starts_at")
    ends_at = times.get("ends_at") or times.get("expires_at")
    if starts_at is not None and ends_at is not None and ends_at <= starts_at:
        raise Refusal("invalid_window", "the window does not end after it starts")
    if len(given.get("text", "")) > MAX_TEXT_CHARS:
        raise Refusal("text_too_long", f"the text has more than {MAX_TEXT_CHARS} characters")
    body = given | {name: time.isoformat() for name, time in times.items()}
    return NewRequest(
        caller.client_id,
        order.transaction_id,
        kind,
        body,
        body_hash=body_hash(kind, body),
        device_id=device_id,
        product_id=given.get("product_id"),
        message_id=given.get("message_id"),
        starts_at=starts_at,
        ends_at=ends_at,
        allows_device=caller.permit.allows_device,
    )


def body_hash(kind: str, body: Mapping[str, object]) -> bytes:
    """SHA-256 over kind and canonical values: what makes two requests the same order."""
    return hashlib.sha256(msgspec.json.encode([kind, body], order="sorted")).digest()


def is_transaction_id(value: object) -> bool:
    """Whether a value is 1 to 64 printable characters."""
    return (
        isinstance(value, str) and 1 <= len(value) <= _MAX_TRANSACTION_CHARS and value.isprintable()
    )


def is_request_id(text: str) -> bool:
    """Whether a text could be the id of a request; of another the database knows nothing."""
    return _REQUEST_ID.fullmatch(text) is not None


def device_number(text: str) -> int | None:
    """The device id in a path; None if it is none."""
    is_number = text.isascii() and text.isdecimal() and not text.startswith("0")
    if not is_number or len(text) > len(str(MAX_DEVICE_ID)) or int(text) > MAX_DEVICE_ID:
        return None
    return int(text)


def _second(name: str, value: datetime) -> datetime:
    # Not astimezone(): near the ends of the calendar the offset leads out of it.
    seconds = (value.replace(microsecond=0) - datetime.fromtimestamp(0, UTC)).total_seconds()
    if not 0 <= seconds <= _LAST_TIME:
        raise Refusal("invalid_value", f"{name} is not between 1970 and 2106")
    return datetime.fromtimestamp(seconds, UTC)


def _refused(
    caller: Caller, kind: str, raw: bytes, fields: Mapping[str, Any], refusal: Refusal
) -> NewRequest:
    """Keep what can be kept of a request that is refused."""
    transaction_id = fields.get("transaction_id")
    device_id = fields.get("device_id")
    return NewRequest(
        caller.client_id,
        transaction_id if is_transaction_id(transaction_id) else None,
        kind,
        {"raw": raw.decode(errors="replace")[:_SNIPPET_CHARS]},
        device_id=device_number(device_id) if isinstance(device_id, str) else None,
        refusal=refusal,
    )
