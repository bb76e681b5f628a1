"""What an order does to a device, in memory: the rules, without a statement of SQL."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any, Protocol

from portcullis.emm import MAX_ENTITLEMENTS

_MESSAGE_LIFE = timedelta(days=7)
_LAST_TIME = datetime.fromtimestamp(2**32 - 2, UTC)


class Refusal(Exception):  # noqa: N818 (not a failure: an answer)
    """The order cannot be accepted; `code` is a problem's code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Request(Protocol):
    """What of a request the rules look at."""

    @property
    def kind(self) -> str: ...  # noqa: D102 (named by the protocol)
    @property
    def body(self) -> Mapping[str, object]: ...  # noqa: D102
    @property
    def device_id(self) -> int | None: ...  # noqa: D102
    @property
    def product_id(self) -> int | None: ...  # noqa: D102
    @property
    def message_id(self) -> int | None: ...  # noqa: D102
    @property
    def starts_at(self) -> datetime | None: ...  # noqa: D102
    @property
    def ends_at(self) -> datetime | None: ...  # noqa: D102
    @property
    def allows_device(self) -> Callable[[int], bool]: ...  # noqa: D102


@dataclass(slots=True)
class Effect:
    """What an order did. `message`: values of a row still to be inserted."""

    device_id: int | None = None
    wanted: int | None = None
    message_id: int | None = None
    message: Mapping[str, object] | None = None
    created: bool = False
    resolved: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Device:
    """One device of the group: what the tables say, and what the group changes."""

    device_id: int
    active: bool
    added_at: datetime
    removed_at: datetime | None = None
    blacklisted_at: datetime | None = None
    is_new: bool = False
    is_changed: bool = False
    held: set[int] = field(default_factory=set)  # products whose window is not over
    windows: dict[int, tuple[datetime, datetime | None] | None] = field(default_factory=dict)
    loses_all: bool = False  # before `windows` are written
    removed_messages_below: int = 0  # messages of orders before this one end
    is_rehit: bool = False  # its messages are sealed again, too
    has_work: bool = False
    wanted: int = 0
    raised: int = 0  # how many of `wanted` the group has added
    state_raised: int = 0  # up to which of those the state is wanted; 0: it is not

    def raise_wanted(self, *, state: bool) -> int:
        """Ask for an EMM that covers one order more; returns the order's number."""
        self.wanted += 1
        self.raised += 1
        if state:
            self.state_raised = self.raised
        return self.wanted


@dataclass
class Group:
    """All that the orders of one transaction depend on and change."""

    now: datetime
    devices: dict[int, Device]
    messages: Mapping[int, Any]
    with_key: set[int]
    products: set[int]
    removed_messages: set[int] = field(default_factory=set)
    named_products: dict[int, tuple[str, bool]] = field(default_factory=dict)  # name, is new
    awaits_resync: bool = False  # restored: what the tables say may have been revoked since

    def apply(self, request: Request) -> Effect:
        """Apply one order; raises Refusal, and then nothing has changed."""
        return _RULES[request.kind](self, request)

    @cached_property
    def second(self) -> datetime:
        """Now, in whole seconds, as windows are."""
        return self.now.replace(microsecond=0)

    def active_device(self, request: Request) -> Device:
        """The device of an order that needs it active; raises Refusal."""
        device = self.devices.get(_given(request.device_id))
        if device is None:
            raise Refusal("unknown_device", f"device {request.device_id} was never added")
        if not device.active:
            raise Refusal("device_not_active", f"device {request.device_id} has been removed")
        return device


def _given(value: int | None) -> int:
    if value is None:
        raise ValueError("an order without the id its kind requires")
    return value


@lru_cache  # orders of a group start together
def _text(time: datetime) -> str:
    return time.isoformat()


def _add_device(group: Group, request: Request) -> Effect:
    device_id = _given(request.device_id)
    device = group.devices.get(device_id)
    if device is not None and device.active:
        raise Refusal("device_exists", f"device {device_id} is active already")
    if device is not None and device.blacklisted_at is not None:
        raise Refusal("not_permitted", f"device {device_id} is blacklisted")
    if device_id not in group.with_key:
        raise Refusal("no_device_key", f"no key has been imported for device {device_id}")
    if device is None:
        device = Device(device_id, active=True, added_at=group.now, is_new=True)
        group.devices[device_id] = device
    else:
        device.active, device.added_at, device.removed_at = True, group.now, None
        device.loses_all = True
    device.is_changed = True
    return Effect(device_id, device.raise_wanted(state=True))


def _remove_device(group: Group, request: Request) -> Effect:
    device = group.active_device(request)
    device.active, device.removed_at = False, group.now
    device.is_changed = device.loses_all = True
    device.held.clear()
    device.windows.clear()
    wanted = device.raise_wanted(state=True)
    device.removed_messages_below = wanted
    return Effect(device.device_id, wanted)


def _add_entitlement(group: Group, request: Request) -> Effect:
    device = group.active_device(request)
    product_id = _given(request.product_id)
    if product_id not in group.products:
        raise Refusal("unknown_product", f"product {product_id} is not in the catalogue")
    starts_at = request.starts_at or group.second
    if request.ends_at is not None and request.ends_at <= starts_at:
        raise Refusal("invalid_window", "ends_at is not after starts_at")
    if product_id not in device.held and len(device.held) >= MAX_ENTITLEMENTS:
        raise Refusal("invalid_value", f"a device holds {MAX_ENTITLEMENTS} entitlements at most")
    device.windows[product_id] = (starts_at, request.ends_at)
    device.held.add(product_id)
    wanted = device.raise_wanted(state=True)
    return Effect(device.device_id, wanted, resolved={"starts_at": _text(starts_at)})


def _remove_entitlement(group: Group, request: Request) -> Effect:
    device = group.active_device(request)
    product_id = _given(request.product_id)
    if product_id not in group.products:
        raise Refusal("unknown_product", f"product {product_id} is not in the catalogue")
    device.windows[product_id] = None
    device.held.discard(product_id)
    return Effect(device.device_id, device.raise_wanted(state=True))


def _generate_osm(group: Group, request: Request) -> Effect:
    device = group.active_device(request)
    starts_at = request.starts_at or group.second
    expires_at = request.ends_at or min(starts_at + _MESSAGE_LIFE, _LAST_TIME)
    if expires_at <= starts_at:
        raise Refusal("invalid_window", "expires_at is not after starts_at")
    wanted = device.raise_wanted(state=False)
    return Effect(
        device.device_id,
        wanted,
        message={
            "device_id": device.device_id,
            "text": request.body["text"],
            "duration_s": request.body["duration_s"],
            "position": request.body.get("position", 0),
            "priority": request.body.get("priority", 0),
            "starts_at": starts_at,
            "expires_at": expires_at,
            "ordered_at": group.second,
            "wanted": wanted,
        },
        resolved={"starts_at": _text(starts_at), "expires_at": _text(expires_at)},
    )


def _remove_osm(group: Group, request: Request) -> Effect:
    message = group.messages.get(_given(request.message_id))
    if message is None or message.device_id not in group.devices:
        raise Refusal("unknown_message", f"there is no message {request.message_id}")
    if not request.allows_device(message.device_id):
        raise Refusal("not_permitted", f"message {message.message_id} is for another's device")
    device = group.devices[message.device_id]
    removed_here = message.message_id in group.removed_messages or (
        message.wanted < device.removed_messages_below
    )
    if removed_here or message.removed_at is not None:
        raise Refusal("unknown_message", f"message {request.message_id} is removed already")
    if message.expires_at <= group.now:
        raise Refusal("unknown_message", f"message {request.message_id} is over")
    group.removed_messages.add(message.message_id)
    return Effect(device.device_id, device.raise_wanted(state=False), message.message_id)


def _rehit(group: Group, request: Request) -> Effect:
    device = group.devices.get(_given(request.device_id))
    if device is None:
        raise Refusal("unknown_device", f"device {request.device_id} was never added")
    if group.awaits_resync:
        raise Refusal(
            "not_permitted", "the database was restored: the SMS repeats its orders first"
        )
    device.is_rehit = True
    return Effect(device.device_id, device.raise_wanted(state=True))


def _put_product(group: Group, request: Request) -> Effect:
    product_id = _given(request.product_id)
    is_new = product_id not in group.products
    _, was_new = group.named_products.get(product_id, ("", False))
    group.named_products[product_id] = (str(request.body["name"]), was_new or is_new)
    group.products.add(product_id)
    return Effect(created=is_new)


_RULES: Mapping[str, Callable[[Group, Request], Effect]] = {
    "adddevice": _add_device,
    "removedevice": _remove_device,
    "addentitlement": _add_entitlement,
    "removeentitlement": _remove_entitlement,
    "generateosm": _generate_osm,
    "removeosm": _remove_osm,
    "rehit": _rehit,
    "putproduct": _put_product,
}
KINDS: Sequence[str] = tuple(_RULES)
