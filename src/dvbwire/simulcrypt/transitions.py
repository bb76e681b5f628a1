"""What may be said when: the states of a channel and of a stream (TS 103 197 clause 6.2.1).

A pair (state, sender, message) that is missing here is misuse. Entries that keep a state also allow
for messages that cross each other on the way: the MUX may report an error, test or allocate while
a close is under way, the EMMG may still be providing when an error reaches it.
"""

from collections.abc import Mapping
from enum import Enum

from dvbwire.simulcrypt.registry import MessageType, Side

_M = MessageType
_EMMG = Side.EMMG
_MUX = Side.MUX


class ChannelState(Enum):
    """Where the channel of a connection stands."""

    NOT_OPEN = "channel_not_open"
    SETTING_UP = "channel_setting_up"
    OPEN = "channel_open"
    IN_ERROR = "channel_in_error"
    CLOSED = "channel_closed"


class StreamState(Enum):
    """Where one stream of a channel stands."""

    NOT_OPEN = "stream_not_open"
    SETTING_UP = "stream_setting_up"
    OPEN = "stream_open"
    CLOSING = "stream_closing"
    IN_ERROR = "stream_in_error"


_C = ChannelState
_S = StreamState

CHANNEL_TRANSITIONS: Mapping[tuple[ChannelState, Side, MessageType], ChannelState] = {
    (_C.NOT_OPEN, _EMMG, _M.CHANNEL_SETUP): _C.SETTING_UP,
    (_C.NOT_OPEN, _MUX, _M.CHANNEL_ERROR): _C.NOT_OPEN,
    (_C.SETTING_UP, _MUX, _M.CHANNEL_STATUS): _C.OPEN,
    (_C.SETTING_UP, _MUX, _M.CHANNEL_ERROR): _C.NOT_OPEN,
    (_C.SETTING_UP, _EMMG, _M.CHANNEL_CLOSE): _C.CLOSED,
    (_C.OPEN, _EMMG, _M.CHANNEL_TEST): _C.OPEN,
    (_C.OPEN, _EMMG, _M.CHANNEL_STATUS): _C.OPEN,
    (_C.OPEN, _MUX, _M.CHANNEL_TEST): _C.OPEN,
    (_C.OPEN, _MUX, _M.CHANNEL_STATUS): _C.OPEN,
    (_C.OPEN, _EMMG, _M.CHANNEL_ERROR): _C.IN_ERROR,
    (_C.OPEN, _MUX, _M.CHANNEL_ERROR): _C.IN_ERROR,
    (_C.OPEN, _EMMG, _M.CHANNEL_CLOSE): _C.CLOSED,
    (_C.IN_ERROR, _EMMG, _M.CHANNEL_TEST): _C.IN_ERROR,
    (_C.IN_ERROR, _EMMG, _M.CHANNEL_STATUS): _C.IN_ERROR,
    (_C.IN_ERROR, _EMMG, _M.CHANNEL_ERROR): _C.IN_ERROR,
    (_C.IN_ERROR, _MUX, _M.CHANNEL_TEST): _C.IN_ERROR,
    (_C.IN_ERROR, _MUX, _M.CHANNEL_STATUS): _C.IN_ERROR,
    (_C.IN_ERROR, _MUX, _M.CHANNEL_ERROR): _C.IN_ERROR,
    (_C.IN_ERROR, _EMMG, _M.CHANNEL_CLOSE): _C.CLOSED,
}

STREAM_TRANSITIONS: Mapping[tuple[StreamState, Side, MessageType], StreamState] = {
    (_S.NOT_OPEN, _EMMG, _M.STREAM_SETUP): _S.SETTING_UP,
    (_S.NOT_OPEN, _EMMG, _M.STREAM_ERROR): _S.NOT_OPEN,
    (_S.NOT_OPEN, _MUX, _M.STREAM_ERROR): _S.NOT_OPEN,
    (_S.SETTING_UP, _MUX, _M.STREAM_STATUS): _S.OPEN,
    (_S.SETTING_UP, _MUX, _M.STREAM_ERROR): _S.NOT_OPEN,
    (_S.SETTING_UP, _EMMG, _M.STREAM_CLOSE_REQUEST): _S.CLOSING,
    (_S.OPEN, _EMMG, _M.STREAM_TEST): _S.OPEN,
    (_S.OPEN, _EMMG, _M.STREAM_STATUS): _S.OPEN,
    (_S.OPEN, _EMMG, _M.STREAM_BW_REQUEST): _S.OPEN,
    (_S.OPEN, _EMMG, _M.DATA_PROVISION): _S.OPEN,
    (_S.OPEN, _MUX, _M.STREAM_TEST): _S.OPEN,
    (_S.OPEN, _MUX, _M.STREAM_STATUS): _S.OPEN,
    (_S.OPEN, _MUX, _M.STREAM_BW_ALLOCATION): _S.OPEN,
    (_S.OPEN, _EMMG, _M.STREAM_ERROR): _S.IN_ERROR,
    (_S.OPEN, _MUX, _M.STREAM_ERROR): _S.IN_ERROR,
    (_S.OPEN, _EMMG, _M.STREAM_CLOSE_REQUEST): _S.CLOSING,
    (_S.IN_ERROR, _EMMG, _M.STREAM_TEST): _S.IN_ERROR,
    (_S.IN_ERROR, _EMMG, _M.STREAM_STATUS): _S.IN_ERROR,
    (_S.IN_ERROR, _EMMG, _M.STREAM_BW_REQUEST): _S.IN_ERROR,
    (_S.IN_ERROR, _EMMG, _M.DATA_PROVISION): _S.IN_ERROR,
    (_S.IN_ERROR, _EMMG, _M.STREAM_ERROR): _S.IN_ERROR,
    (_S.IN_ERROR, _MUX, _M.STREAM_TEST): _S.IN_ERROR,
    (_S.IN_ERROR, _MUX, _M.STREAM_STATUS): _S.IN_ERROR,
    (_S.IN_ERROR, _MUX, _M.STREAM_BW_ALLOCATION): _S.IN_ERROR,
    (_S.IN_ERROR, _MUX, _M.STREAM_ERROR): _S.IN_ERROR,
    (_S.IN_ERROR, _EMMG, _M.STREAM_CLOSE_REQUEST): _S.CLOSING,
    (_S.CLOSING, _EMMG, _M.STREAM_STATUS): _S.CLOSING,
    (_S.CLOSING, _MUX, _M.STREAM_TEST): _S.CLOSING,
    (_S.CLOSING, _MUX, _M.STREAM_STATUS): _S.CLOSING,
    (_S.CLOSING, _MUX, _M.STREAM_BW_ALLOCATION): _S.CLOSING,
    (_S.CLOSING, _MUX, _M.STREAM_ERROR): _S.CLOSING,
    (_S.CLOSING, _MUX, _M.STREAM_CLOSE_RESPONSE): _S.NOT_OPEN,
}
