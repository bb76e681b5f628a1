"""DVB SimulCrypt, the EMMG/PDG-MUX interface (TS 103 197 clause 6), both ends.

Does: messages to bytes and back, checked against the grammar; the state machines of channel and
    streams, tests and time-outs included, as `EmmgConnection` and `MuxConnection`.
Owns: nothing.
Hears: bytes cut anywhere, the owner's calls, the time as an argument.
Speaks: bytes to send, frozen events; `LocalProtocolError` for its owner's mistakes.
Never: raises on what a peer sends: that becomes `ProtocolViolation` or `PeerSentUnknown`.
"""

from dvbwire.simulcrypt.emmg import EmmgConnection
from dvbwire.simulcrypt.errors import LocalProtocolError, RemoteProtocolError, SimulcryptError
from dvbwire.simulcrypt.events import (
    BandwidthAllocated,
    BandwidthRequested,
    ChannelClosed,
    ChannelError,
    ChannelOpened,
    ChannelSetup,
    DataProvided,
    Event,
    PeerSentUnknown,
    ProtocolViolation,
    StreamClosed,
    StreamCloseRequested,
    StreamError,
    StreamOpened,
    StreamSetup,
    TestAnswered,
    TimedOut,
)
from dvbwire.simulcrypt.framing import MessageReader
from dvbwire.simulcrypt.grammar import GRAMMAR
from dvbwire.simulcrypt.message import Message
from dvbwire.simulcrypt.mux import MuxConnection
from dvbwire.simulcrypt.provision import (
    UdpProvision,
    datagram_fits,
    decode_udp_provision,
    encode_udp_provision,
)
from dvbwire.simulcrypt.registry import (
    SUPPORTED_VERSIONS,
    DataType,
    ErrorStatus,
    MessageType,
    ParameterType,
    SectionTspktFlag,
    Side,
    describe_error_status,
)
from dvbwire.simulcrypt.transitions import (
    CHANNEL_TRANSITIONS,
    STREAM_TRANSITIONS,
    ChannelState,
    StreamState,
)

__all__ = [
    "CHANNEL_TRANSITIONS",
    "GRAMMAR",
    "STREAM_TRANSITIONS",
    "SUPPORTED_VERSIONS",
    "BandwidthAllocated",
    "BandwidthRequested",
    "ChannelClosed",
    "ChannelError",
    "ChannelOpened",
    "ChannelSetup",
    "ChannelState",
    "DataProvided",
    "DataType",
    "EmmgConnection",
    "ErrorStatus",
    "Event",
    "LocalProtocolError",
    "Message",
    "MessageReader",
    "MessageType",
    "MuxConnection",
    "ParameterType",
    "PeerSentUnknown",
    "ProtocolViolation",
    "RemoteProtocolError",
    "SectionTspktFlag",
    "Side",
    "SimulcryptError",
    "StreamCloseRequested",
    "StreamClosed",
    "StreamError",
    "StreamOpened",
    "StreamSetup",
    "StreamState",
    "TestAnswered",
    "TimedOut",
    "UdpProvision",
    "datagram_fits",
    "decode_udp_provision",
    "describe_error_status",
    "encode_udp_provision",
]
