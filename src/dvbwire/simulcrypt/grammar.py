"""Which parameters a message holds: TS 103 197 clauses 6.2.4 and 6.2.5 as one table."""

from collections.abc import Mapping
from dataclasses import dataclass

from dvbwire.simulcrypt.registry import DataType, MessageType, ParameterType, SectionTspktFlag

_M = MessageType
_P = ParameterType


@dataclass(frozen=True, slots=True)
class Rule:
    """How one parameter stands in one message.

    Attributes:
        size: bytes of its value, None for any.
        at_least: fewest times it occurs.
        at_most: most times it occurs, None for any.
        since: the first protocol version that has it; before, it is an unknown parameter.
    """

    size: int | None
    at_least: int
    at_most: int | None
    since: int = 1


_U32 = Rule(4, 1, 1)
_U16 = Rule(2, 1, 1)
_U8 = Rule(1, 1, 1)
_OPTIONAL_U16 = Rule(2, 0, 1)
_DATA_ID = Rule(2, 1, 1, since=2)

_CHANNEL = {_P.CLIENT_ID: _U32, _P.DATA_CHANNEL_ID: _U16}
_STREAM = {**_CHANNEL, _P.DATA_STREAM_ID: _U16}
_ERROR = {_P.ERROR_STATUS: Rule(2, 1, None), _P.ERROR_INFORMATION: Rule(None, 0, None)}

GRAMMAR: Mapping[MessageType, Mapping[ParameterType, Rule]] = {
    _M.CHANNEL_SETUP: {**_CHANNEL, _P.SECTION_TSPKT_FLAG: _U8},
    _M.CHANNEL_TEST: _CHANNEL,
    _M.CHANNEL_STATUS: {**_CHANNEL, _P.SECTION_TSPKT_FLAG: _U8},
    _M.CHANNEL_CLOSE: _CHANNEL,
    _M.CHANNEL_ERROR: {**_CHANNEL, **_ERROR},
    _M.STREAM_SETUP: {**_STREAM, _P.DATA_ID: _DATA_ID, _P.DATA_TYPE: _U8},
    _M.STREAM_TEST: _STREAM,
    _M.STREAM_STATUS: {**_STREAM, _P.DATA_ID: _DATA_ID, _P.DATA_TYPE: _U8},
    _M.STREAM_CLOSE_REQUEST: _STREAM,
    _M.STREAM_CLOSE_RESPONSE: _STREAM,
    _M.STREAM_ERROR: {**_STREAM, **_ERROR},
    _M.STREAM_BW_REQUEST: {**_STREAM, _P.BANDWIDTH: _OPTIONAL_U16},
    _M.STREAM_BW_ALLOCATION: {**_STREAM, _P.BANDWIDTH: _OPTIONAL_U16},
    _M.DATA_PROVISION: {
        _P.CLIENT_ID: _U32,
        _P.DATA_CHANNEL_ID: _OPTIONAL_U16,
        _P.DATA_STREAM_ID: _OPTIONAL_U16,
        _P.DATA_ID: _DATA_ID,
        _P.DATAGRAM: Rule(None, 1, None),
    },
}

# Clause 6.2.3: the values a parameter may have, and since which version; parameters that are not
# listed may have any.
ALLOWED_VALUES: Mapping[ParameterType, Mapping[int, int]] = {
    _P.SECTION_TSPKT_FLAG: {
        SectionTspktFlag.SECTIONS: 1,
        SectionTspktFlag.PACKETS: 1,
        SectionTspktFlag.DVB_H: 5,
    },
    _P.DATA_TYPE: {DataType.EMM: 1, DataType.PRIVATE_DATA: 1},
}
