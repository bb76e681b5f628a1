"""What a connection tells its owner: frozen values, in the order things happened."""

from dataclasses import dataclass

from dvbwire.simulcrypt.errors import RemoteProtocolError
from dvbwire.simulcrypt.registry import MessageType


@dataclass(frozen=True, slots=True)
class ChannelSetup:
    """At the MUX: a channel is asked for; answer with accept_channel or refuse_channel.

    Attributes:
        version: the protocol version the EMMG speaks, now that of the session.
        client_id: 32 bits, CA_system_id in the upper 16.
        data_channel_id: 16 bits, chosen by the EMMG.
        section_tspkt_flag: what the EMMG would like to send; see `SectionTspktFlag`.
    """

    version: int
    client_id: int
    data_channel_id: int
    section_tspkt_flag: int


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """At the EMMG: the channel is open; datagrams must be what `section_tspkt_flag` says."""

    section_tspkt_flag: int


@dataclass(frozen=True, slots=True)
class ChannelError:
    """The peer reports an error of the whole channel.

    A channel being set up is refused and may be asked for again; an open one is lost: close the
    connection.

    Attributes:
        statuses: error_status values; see `describe_error_status`.
        information: error_information values, of no defined form.
    """

    statuses: tuple[int, ...]
    information: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """At the MUX: the EMMG has closed the channel; close the connection."""


@dataclass(frozen=True, slots=True)
class StreamSetup:
    """At the MUX: a stream is asked for; answer with accept_stream or refuse_stream.

    Attributes:
        stream_id: data_stream_id, unique on the channel.
        data_id: with client_id, names the stream among all on the MUX.
        data_type: see `DataType`.
    """

    stream_id: int
    data_id: int
    data_type: int


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """At the EMMG: the stream is open."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamError:
    """The peer reports an error of one stream.

    A stream being set up is refused; an open one must be closed.

    Attributes:
        stream_id: data_stream_id, not necessarily of a stream this end knows.
        statuses: error_status values; see `describe_error_status`.
        information: error_information values, of no defined form.
    """

    stream_id: int
    statuses: tuple[int, ...]
    information: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class StreamCloseRequested:
    """At the MUX: the EMMG will send no more on a stream; answer with confirm_stream_close."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """At the EMMG: the MUX has closed the stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class BandwidthRequested:
    """At the MUX: answer with allocate. `kbit_s` None asks what is allocated."""

    stream_id: int
    kbit_s: int | None


@dataclass(frozen=True, slots=True)
class BandwidthAllocated:
    """At the EMMG: what the stream may send from now on, asked for or not.

    Attributes:
        stream_id: data_stream_id.
        kbit_s: at transport stream level; None if the MUX does not say.
    """

    stream_id: int
    kbit_s: int | None


@dataclass(frozen=True, slots=True)
class DataProvided:
    """At the MUX: datagrams that fit the channel's section_TSpkt_flag, in order."""

    stream_id: int
    data_id: int
    datagrams: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TestAnswered:
    """The peer has answered a test; `stream_id` None: of the channel."""

    __test__ = False  # a message of the protocol, not a test case

    stream_id: int | None


@dataclass(frozen=True, slots=True)
class TimedOut:
    """An awaited message has not come in time; mostly a reason to close the connection.

    Attributes:
        what: the message awaited.
        stream_id: None if it concerns the channel.
    """

    what: MessageType
    stream_id: int | None


@dataclass(frozen=True, slots=True)
class ProtocolViolation:
    """The peer has sent what is not allowed; where the standard wants an answer it is queued."""

    error: RemoteProtocolError


@dataclass(frozen=True, slots=True)
class PeerSentUnknown:
    """The peer has sent what the grammar does not know; it was ignored, as the standard demands.

    Attributes:
        message_type: of the message.
        parameters: how many parameters were ignored.
    """

    message_type: int
    parameters: int


Event = (
    ChannelSetup
    | ChannelOpened
    | ChannelError
    | ChannelClosed
    | StreamSetup
    | StreamOpened
    | StreamError
    | StreamCloseRequested
    | StreamClosed
    | BandwidthRequested
    | BandwidthAllocated
    | DataProvided
    | TestAnswered
    | TimedOut
    | ProtocolViolation
    | PeerSentUnknown
)
