"""What an EMM says and how it is laid out and sealed (docs/emm-format.md).

Does: states, messages and withdrawals to payload bytes; payloads to sealed
      sections; product key chains. Pure: no I/O, no clock, no randomness of
      its own (the caller passes the data encryption keys).
Owns: the layout. Speaks to: nobody. Never: holds a key longer than a call.
"""

from portcullis.emm.chain import chain_key
from portcullis.emm.dissect import Dissection, Fault, Field, dissect_payload, dissect_section
from portcullis.emm.envelope import (
    DEK_BYTES,
    EmmColumns,
    EmmHeader,
    EmmSet,
    derive_kek,
    expand_kek,
    in_range,
    kek_expansion,
    kek_expansions,
    open_set,
    seal_columns,
    seal_set,
    seal_sets,
    set_of,
)
from portcullis.emm.errors import EmmError, EmmFormatError, EmmIntegrityError, EmmTooLargeError
from portcullis.emm.layout import (
    MAX_ENTITLEMENTS,
    OPEN_END,
    RECORD,
    TLV_IN_FORCE,
    TLV_LATER,
    EntitlementRecord,
    Kind,
    Message,
    State,
    Withdrawal,
    record_head,
    segment_text,
    state_payload,
    state_payloads,
)

__all__ = [
    "DEK_BYTES",
    "MAX_ENTITLEMENTS",
    "OPEN_END",
    "RECORD",
    "TLV_IN_FORCE",
    "TLV_LATER",
    "Dissection",
    "EmmColumns",
    "EmmError",
    "EmmFormatError",
    "EmmHeader",
    "EmmIntegrityError",
    "EmmSet",
    "EmmTooLargeError",
    "EntitlementRecord",
    "Fault",
    "Field",
    "Kind",
    "Message",
    "State",
    "Withdrawal",
    "chain_key",
    "derive_kek",
    "dissect_payload",
    "dissect_section",
    "expand_kek",
    "in_range",
    "kek_expansion",
    "kek_expansions",
    "open_set",
    "record_head",
    "seal_columns",
    "seal_set",
    "seal_sets",
    "segment_text",
    "set_of",
    "state_payload",
    "state_payloads",
]
