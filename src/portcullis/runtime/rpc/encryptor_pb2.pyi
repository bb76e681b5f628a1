from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SealedKey(_message.Message):
    __slots__ = ("purpose", "owner", "first_epoch", "last_epoch", "master_id", "blob")
    class Purpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PURPOSE_UNSPECIFIED: _ClassVar[SealedKey.Purpose]
        DEVICE: _ClassVar[SealedKey.Purpose]
        PRODUCT: _ClassVar[SealedKey.Purpose]
    PURPOSE_UNSPECIFIED: SealedKey.Purpose
    DEVICE: SealedKey.Purpose
    PRODUCT: SealedKey.Purpose
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    FIRST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    purpose: SealedKey.Purpose
    owner: int
    first_epoch: int
    last_epoch: int
    master_id: str
    blob: bytes
    def __init__(self, purpose: _Optional[_Union[SealedKey.Purpose, str]] = ..., owner: _Optional[int] = ..., first_epoch: _Optional[int] = ..., last_epoch: _Optional[int] = ..., master_id: _Optional[str] = ..., blob: _Optional[bytes] = ...) -> None: ...

class Entitlement(_message.Message):
    __slots__ = ("product_id", "epoch", "starts_at", "ends_at", "key")
    PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STARTS_AT_FIELD_NUMBER: _ClassVar[int]
    ENDS_AT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    product_id: int
    epoch: int
    starts_at: int
    ends_at: int
    key: int
    def __init__(self, product_id: _Optional[int] = ..., epoch: _Optional[int] = ..., starts_at: _Optional[int] = ..., ends_at: _Optional[int] = ..., key: _Optional[int] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("active", "utc", "entitlements")
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    UTC_FIELD_NUMBER: _ClassVar[int]
    ENTITLEMENTS_FIELD_NUMBER: _ClassVar[int]
    active: bool
    utc: int
    entitlements: _containers.RepeatedCompositeFieldContainer[Entitlement]
    def __init__(self, active: _Optional[bool] = ..., utc: _Optional[int] = ..., entitlements: _Optional[_Iterable[_Union[Entitlement, _Mapping]]] = ...) -> None: ...

class ScreenMessage(_message.Message):
    __slots__ = ("text", "duration_s", "position", "priority", "expires_at")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    text: str
    duration_s: int
    position: int
    priority: int
    expires_at: int
    def __init__(self, text: _Optional[str] = ..., duration_s: _Optional[int] = ..., position: _Optional[int] = ..., priority: _Optional[int] = ..., expires_at: _Optional[int] = ...) -> None: ...

class Withdrawal(_message.Message):
    __slots__ = ("expires_at",)
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    expires_at: int
    def __init__(self, expires_at: _Optional[int] = ...) -> None: ...

class SealItem(_message.Message):
    __slots__ = ("address", "epoch", "number", "device_key", "state", "message", "withdrawal")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DEVICE_KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWAL_FIELD_NUMBER: _ClassVar[int]
    address: int
    epoch: int
    number: int
    device_key: SealedKey
    state: State
    message: ScreenMessage
    withdrawal: Withdrawal
    def __init__(self, address: _Optional[int] = ..., epoch: _Optional[int] = ..., number: _Optional[int] = ..., device_key: _Optional[_Union[SealedKey, _Mapping]] = ..., state: _Optional[_Union[State, _Mapping]] = ..., message: _Optional[_Union[ScreenMessage, _Mapping]] = ..., withdrawal: _Optional[_Union[Withdrawal, _Mapping]] = ...) -> None: ...

class SealRequest(_message.Message):
    __slots__ = ("ca_system_id", "product_keys", "items")
    CA_SYSTEM_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_KEYS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ca_system_id: int
    product_keys: _containers.RepeatedCompositeFieldContainer[SealedKey]
    items: _containers.RepeatedCompositeFieldContainer[SealItem]
    def __init__(self, ca_system_id: _Optional[int] = ..., product_keys: _Optional[_Iterable[_Union[SealedKey, _Mapping]]] = ..., items: _Optional[_Iterable[_Union[SealItem, _Mapping]]] = ...) -> None: ...

class Sealed(_message.Message):
    __slots__ = ("sections", "error", "code")
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    sections: _containers.RepeatedScalarFieldContainer[bytes]
    error: str
    code: str
    def __init__(self, sections: _Optional[_Iterable[bytes]] = ..., error: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class SealReply(_message.Message):
    __slots__ = ("items", "clock_us")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Sealed]
    clock_us: int
    def __init__(self, items: _Optional[_Iterable[_Union[Sealed, _Mapping]]] = ..., clock_us: _Optional[int] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("product_id", "epoch", "key")
    PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    product_id: int
    epoch: int
    key: int
    def __init__(self, product_id: _Optional[int] = ..., epoch: _Optional[int] = ..., key: _Optional[int] = ...) -> None: ...

class DeviceKeyLabel(_message.Message):
    __slots__ = ("first_epoch", "last_epoch", "master_id")
    FIRST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    first_epoch: int
    last_epoch: int
    master_id: str
    def __init__(self, first_epoch: _Optional[int] = ..., last_epoch: _Optional[int] = ..., master_id: _Optional[str] = ...) -> None: ...

class SealStatesRequest(_message.Message):
    __slots__ = ("ca_system_id", "utc", "product_keys", "grants", "labels", "addresses", "epochs", "numbers", "device_key_labels", "device_keys", "active", "entitlements", "entitlement_grants", "entitlement_starts_at", "entitlement_ends_at")
    CA_SYSTEM_ID_FIELD_NUMBER: _ClassVar[int]
    UTC_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_KEYS_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_KEY_LABELS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_KEYS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    ENTITLEMENTS_FIELD_NUMBER: _ClassVar[int]
    ENTITLEMENT_GRANTS_FIELD_NUMBER: _ClassVar[int]
    ENTITLEMENT_STARTS_AT_FIELD_NUMBER: _ClassVar[int]
    ENTITLEMENT_ENDS_AT_FIELD_NUMBER: _ClassVar[int]
    ca_system_id: int
    utc: int
    product_keys: _containers.RepeatedCompositeFieldContainer[SealedKey]
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    labels: _containers.RepeatedCompositeFieldContainer[DeviceKeyLabel]
    addresses: _containers.RepeatedScalarFieldContainer[int]
    epochs: _containers.RepeatedScalarFieldContainer[int]
    numbers: _containers.RepeatedScalarFieldContainer[int]
    device_key_labels: _containers.RepeatedScalarFieldContainer[int]
    device_keys: _containers.RepeatedScalarFieldContainer[bytes]
    active: _containers.RepeatedScalarFieldContainer[bool]
    entitlements: _containers.RepeatedScalarFieldContainer[int]
    entitlement_grants: _containers.RepeatedScalarFieldContainer[int]
    entitlement_starts_at: _containers.RepeatedScalarFieldContainer[int]
    entitlement_ends_at: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ca_system_id: _Optional[int] = ..., utc: _Optional[int] = ..., product_keys: _Optional[_Iterable[_Union[SealedKey, _Mapping]]] = ..., grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., labels: _Optional[_Iterable[_Union[DeviceKeyLabel, _Mapping]]] = ..., addresses: _Optional[_Iterable[int]] = ..., epochs: _Optional[_Iterable[int]] = ..., numbers: _Optional[_Iterable[int]] = ..., device_key_labels: _Optional[_Iterable[int]] = ..., device_keys: _Optional[_Iterable[bytes]] = ..., active: _Optional[_Iterable[bool]] = ..., entitlements: _Optional[_Iterable[int]] = ..., entitlement_grants: _Optional[_Iterable[int]] = ..., entitlement_starts_at: _Optional[_Iterable[int]] = ..., entitlement_ends_at: _Optional[_Iterable[int]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("place", "error", "code")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    place: int
    error: str
    code: str
    def __init__(self, place: _Optional[int] = ..., error: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class SealStatesReply(_message.Message):
    __slots__ = ("parts", "sections", "refusals", "clock_us")
    PARTS_FIELD_NUMBER: _ClassVar[int]
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedScalarFieldContainer[int]
    sections: _containers.RepeatedScalarFieldContainer[bytes]
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    clock_us: int
    def __init__(self, parts: _Optional[_Iterable[int]] = ..., sections: _Optional[_Iterable[bytes]] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., clock_us: _Optional[int] = ...) -> None: ...

class MakeChainRequest(_message.Message):
    __slots__ = ("product_id", "first_epoch", "last_epoch")
    PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    product_id: int
    first_epoch: int
    last_epoch: int
    def __init__(self, product_id: _Optional[int] = ..., first_epoch: _Optional[int] = ..., last_epoch: _Optional[int] = ...) -> None: ...

class VendorFile(_message.Message):
    __slots__ = ("data", "skip_lines")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SKIP_LINES_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    skip_lines: int
    def __init__(self, data: _Optional[bytes] = ..., skip_lines: _Optional[int] = ...) -> None: ...

class ImportedKey(_message.Message):
    __slots__ = ("line", "key", "error")
    LINE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    line: int
    key: SealedKey
    error: str
    def __init__(self, line: _Optional[int] = ..., key: _Optional[_Union[SealedKey, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class ImportedKeys(_message.Message):
    __slots__ = ("keys", "lines", "bytes")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[ImportedKey]
    lines: int
    bytes: int
    def __init__(self, keys: _Optional[_Iterable[_Union[ImportedKey, _Mapping]]] = ..., lines: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class SameKeysRequest(_message.Message):
    __slots__ = ("pairs",)
    class Pair(_message.Message):
        __slots__ = ("held", "offered")
        HELD_FIELD_NUMBER: _ClassVar[int]
        OFFERED_FIELD_NUMBER: _ClassVar[int]
        held: SealedKey
        offered: SealedKey
        def __init__(self, held: _Optional[_Union[SealedKey, _Mapping]] = ..., offered: _Optional[_Union[SealedKey, _Mapping]] = ...) -> None: ...
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    pairs: _containers.RepeatedCompositeFieldContainer[SameKeysRequest.Pair]
    def __init__(self, pairs: _Optional[_Iterable[_Union[SameKeysRequest.Pair, _Mapping]]] = ...) -> None: ...

class SameKeysReply(_message.Message):
    __slots__ = ("errors",)
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    errors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, errors: _Optional[_Iterable[str]] = ...) -> None: ...

class RewrapRequest(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[SealedKey]
    def __init__(self, keys: _Optional[_Iterable[_Union[SealedKey, _Mapping]]] = ...) -> None: ...

class Rewrapped(_message.Message):
    __slots__ = ("key", "error")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    key: SealedKey
    error: str
    def __init__(self, key: _Optional[_Union[SealedKey, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class RewrapReply(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[Rewrapped]
    def __init__(self, keys: _Optional[_Iterable[_Union[Rewrapped, _Mapping]]] = ...) -> None: ...

class VerifyRequest(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[SealedKey]
    def __init__(self, keys: _Optional[_Iterable[_Union[SealedKey, _Mapping]]] = ...) -> None: ...

class VerifyReply(_message.Message):
    __slots__ = ("errors",)
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    errors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, errors: _Optional[_Iterable[str]] = ...) -> None: ...

class ChangeMasterRequest(_message.Message):
    __slots__ = ("change", "master_id")
    class Change(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CHANGE_UNSPECIFIED: _ClassVar[ChangeMasterRequest.Change]
        MAKE: _ClassVar[ChangeMasterRequest.Change]
        USE: _ClassVar[ChangeMasterRequest.Change]
        RETIRE: _ClassVar[ChangeMasterRequest.Change]
        RECALL: _ClassVar[ChangeMasterRequest.Change]
    CHANGE_UNSPECIFIED: ChangeMasterRequest.Change
    MAKE: ChangeMasterRequest.Change
    USE: ChangeMasterRequest.Change
    RETIRE: ChangeMasterRequest.Change
    RECALL: ChangeMasterRequest.Change
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    change: ChangeMasterRequest.Change
    master_id: str
    def __init__(self, change: _Optional[_Union[ChangeMasterRequest.Change, str]] = ..., master_id: _Optional[str] = ...) -> None: ...

class Master(_message.Message):
    __slots__ = ("master_id", "state", "check_value")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Master.State]
        CURRENT: _ClassVar[Master.State]
        OLDER: _ClassVar[Master.State]
        WAITING: _ClassVar[Master.State]
    STATE_UNSPECIFIED: Master.State
    CURRENT: Master.State
    OLDER: Master.State
    WAITING: Master.State
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CHECK_VALUE_FIELD_NUMBER: _ClassVar[int]
    master_id: str
    state: Master.State
    check_value: str
    def __init__(self, master_id: _Optional[str] = ..., state: _Optional[_Union[Master.State, str]] = ..., check_value: _Optional[str] = ...) -> None: ...

class InfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InfoReply(_message.Message):
    __slots__ = ("masters", "clock_us", "import_recipient")
    MASTERS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_US_FIELD_NUMBER: _ClassVar[int]
    IMPORT_RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    masters: _containers.RepeatedCompositeFieldContainer[Master]
    clock_us: int
    import_recipient: str
    def __init__(self, masters: _Optional[_Iterable[_Union[Master, _Mapping]]] = ..., clock_us: _Optional[int] = ..., import_recipient: _Optional[str] = ...) -> None: ...
