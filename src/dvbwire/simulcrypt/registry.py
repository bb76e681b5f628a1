"""The numbers of the EMMG/PDG-MUX interface (TS 103 197 clauses 4.4.1, 6.2.2, 6.2.6).

Message and parameter numbers are shared between the interfaces of TS 103 197; those of other
interfaces are, on this one, unknown. The same error_status numbers mean other things elsewhere.
"""

from enum import Enum, IntEnum

SUPPORTED_VERSIONS = frozenset({2, 3, 5})

# For messages, parameters and error_status alike.
USER_DEFINED = range(0x8000, 0x10000)


class Side(Enum):
    """Which end sends."""

    EMMG = "EMMG"
    MUX = "MUX"


class MessageType(IntEnum):
    """message_type (Table 3): those of this interface; 0x8000 and above are user defined."""

    CHANNEL_SETUP = 0x0011
    CHANNEL_TEST = 0x0012
    CHANNEL_STATUS = 0x0013
    CHANNEL_CLOSE = 0x0014
    CHANNEL_ERROR = 0x0015
    # 0x0016 to 0x0110: reserved, or of other interfaces
    STREAM_SETUP = 0x0111
    STREAM_TEST = 0x0112
    STREAM_STATUS = 0x0113
    STREAM_CLOSE_REQUEST = 0x0114
    STREAM_CLOSE_RESPONSE = 0x0115
    STREAM_ERROR = 0x0116
    STREAM_BW_REQUEST = 0x0117
    STREAM_BW_ALLOCATION = 0x0118
    # 0x0119 to 0x0210: reserved, or of other interfaces
    DATA_PROVISION = 0x0211


CHANNEL_MESSAGES = frozenset(
    {
        MessageType.CHANNEL_SETUP,
        MessageType.CHANNEL_TEST,
        MessageType.CHANNEL_STATUS,
        MessageType.CHANNEL_CLOSE,
        MessageType.CHANNEL_ERROR,
    }
)


class ParameterType(IntEnum):
    """parameter_type on this interface (Table 7); 0x8000 and above are user defined."""

    CLIENT_ID = 0x0001
    SECTION_TSPKT_FLAG = 0x0002
    DATA_CHANNEL_ID = 0x0003
    DATA_STREAM_ID = 0x0004
    DATAGRAM = 0x0005
    BANDWIDTH = 0x0006
    DATA_TYPE = 0x0007
    DATA_ID = 0x0008
    # 0x0009 to 0x6FFF: reserved
    ERROR_STATUS = 0x7000
    ERROR_INFORMATION = 0x7001


class SectionTspktFlag(IntEnum):
    """What a datagram is on this channel."""

    SECTIONS = 0
    PACKETS = 1
    DVB_H = 2  # version 5 only


class DataType(IntEnum):
    """What a stream carries."""

    EMM = 0
    PRIVATE_DATA = 1


class ErrorStatus(IntEnum):
    """error_status on this interface (clause 6.2.6, Table 8); 0x8000 and above: user defined."""

    INVALID_MESSAGE = 0x0001
    UNSUPPORTED_VERSION = 0x0002
    UNKNOWN_MESSAGE_TYPE = 0x0003
    MESSAGE_TOO_LONG = 0x0004
    UNKNOWN_DATA_STREAM_ID = 0x0005
    UNKNOWN_DATA_CHANNEL_ID = 0x0006
    TOO_MANY_CHANNELS = 0x0007
    TOO_MANY_STREAMS_ON_CHANNEL = 0x0008
    TOO_MANY_STREAMS_ON_MUX = 0x0009
    UNKNOWN_PARAMETER = 0x000A
    INCONSISTENT_LENGTH = 0x000B
    MISSING_PARAMETER = 0x000C
    INVALID_VALUE = 0x000D
    UNKNOWN_CLIENT_ID = 0x000E
    EXCEEDED_BANDWIDTH = 0x000F
    UNKNOWN_DATA_ID = 0x0010
    DATA_CHANNEL_ID_IN_USE = 0x0011
    DATA_STREAM_ID_IN_USE = 0x0012
    DATA_ID_IN_USE = 0x0013
    CLIENT_ID_IN_USE = 0x0014
    # 0x0015 to 0x6FFF: reserved
    UNKNOWN_ERROR = 0x7000
    UNRECOVERABLE_ERROR = 0x7001
    # 0x7002 to 0x7FFF: reserved


def describe_error_status(status: int) -> str:
    """Return the name of an error_status as a peer may send it, with its number, for a log."""
    try:
        name = ErrorStatus(status).name.lower()
    except ValueError:
        name = "user_defined" if status in USER_DEFINED else "reserved"
    return f"{name} (0x{status:04X})"
