"""The MUX end of a connection: the one that grants and receives."""

from collections.abc import Collection

from dvbwire.simulcrypt.connection import Connection, Parameter
from dvbwire.simulcrypt.errors import RemoteProtocolError
from dvbwire.simulcrypt.events import (
    BandwidthRequested,
    ChannelClosed,
    ChannelSetup,
    DataProvided,
    Event,
    StreamCloseRequested,
    StreamSetup,
)
from dvbwire.simulcrypt.message import Message
from dvbwire.simulcrypt.provision import datagram_fits
from dvbwire.simulcrypt.registry import (
    SUPPORTED_VERSIONS,
    ErrorStatus,
    MessageType,
    ParameterType,
    Side,
)
from dvbwire.simulcrypt.transitions import ChannelState, StreamState


class MuxConnection(Connection):
    """One connection from an EMMG or PDG, without the socket.

    Events ask, methods answer; each queues its message for `data_to_send` and returns True. Where
    the peer has meanwhile made the answer pointless (it closed, or broke the rules) nothing is
    queued and the method returns False. Misuse is answered by itself; when `channel_state` is
    IN_ERROR or CLOSED, send what is queued and close TCP.
    """

    _side = Side.MUX
    _peer = Side.EMMG
    _answered_misuse = range(0x10000)

    def __init__(
        self,
        versions: Collection[int] = SUPPORTED_VERSIONS,
        *,
        response_timeout_s: float = 5.0,
        test_after_s: float = 10.0,
        opened_at: float | None = None,
    ) -> None:
        """Prepare for a peer.

        Args:
            versions: the protocol versions accepted.
            response_timeout_s: how long to wait for the answer to a test, and for channel_setup.
            test_after_s: silence of the peer after which channel and streams are tested.
            opened_at: when the connection was accepted; without it channel_setup may take for ever.
        """
        super().__init__(max(versions), response_timeout_s, test_after_s)
        self._versions = frozenset(versions)
        if opened_at is not None:
            self._await(MessageType.CHANNEL_SETUP, None, opened_at)

    def accept_channel(self, section_tspkt_flag: int) -> bool:
        """Open the channel asked for, with the flag the EMMG must obey."""
        if self.channel_state is not ChannelState.SETTING_UP:
            return False
        self.section_tspkt_flag = section_tspkt_flag
        self._send_channel_status()
        return True

    def refuse_channel(self, status: int, information: bytes = b"") -> bool:
        """Refuse the channel asked for, or declare the open one beyond recovery."""
        if self.channel_state not in {ChannelState.SETTING_UP, ChannelState.OPEN}:
            return False
        self._send_channel(MessageType.CHANNEL_ERROR, *_error(status, information))
        return True

    def accept_stream(self, stream_id: int) -> bool:
        """Open the stream asked for."""
        if self.stream_state(stream_id) is not StreamState.SETTING_UP:
            return False
        self._send_stream_status(stream_id)
        return True

    def refuse_stream(self, stream_id: int, status: int, information: bytes = b"") -> bool:
        """Refuse the stream asked for, or declare an open one beyond recovery."""
        if self.stream_state(stream_id) not in {StreamState.SETTING_UP, StreamState.OPEN}:
            return False
        error = _error(status, information)
        self._send_stream(MessageType.STREAM_ERROR, stream_id, *error)
        return True

    def allocate(self, stream_id: int, kbit_s: int | None) -> bool:
        """Say what an open stream may send, asked or not; None says that it is not known."""
        if self.stream_state(stream_id) is not StreamState.OPEN:
            return False
        granted = () if kbit_s is None else ((ParameterType.BANDWIDTH, kbit_s),)
        self._send_stream(MessageType.STREAM_BW_ALLOCATION, stream_id, *granted)
        return True

    def confirm_stream_close(self, stream_id: int) -> bool:
        """Answer that the stream is closed; its id may be used anew."""
        if self.stream_state(stream_id) is not StreamState.CLOSING:
            return False
        self._send_stream(MessageType.STREAM_CLOSE_RESPONSE, stream_id)
        return True

    def _check_version(self, message: Message) -> None:
        if self.channel_state is not ChannelState.NOT_OPEN:
            supported = message.version == self.version
        else:  # answer in the peer's version, or the next lower one spoken here
            lower = (version for version in self._versions if version <= message.version)
            self.version = max(lower, default=min(self._versions))
            supported = message.version in self._versions
        if not supported:
            detail = f"version {message.version}"
            raise RemoteProtocolError(ErrorStatus.UNSUPPORTED_VERSION, detail, message)

    def _heard(self, message: Message, stream_id: int) -> list[Event]:
        match message.type:
            case MessageType.CHANNEL_SETUP:
                self.client_id = message.number(ParameterType.CLIENT_ID)
                self.data_channel_id = message.number(ParameterType.DATA_CHANNEL_ID)
                flag = message.number(ParameterType.SECTION_TSPKT_FLAG)
                return [ChannelSetup(self.version, self.client_id, self.data_channel_id, flag)]
            case MessageType.CHANNEL_CLOSE:
                return [ChannelClosed()]
            case MessageType.STREAM_SETUP:
                stream = self._streams[stream_id]
                stream.data_id = message.number(ParameterType.DATA_ID)
                stream.data_type = message.number(ParameterType.DATA_TYPE)
                return [StreamSetup(stream_id, stream.data_id, stream.data_type)]
            case MessageType.STREAM_CLOSE_REQUEST:
                return [StreamCloseRequested(stream_id)]
            case MessageType.STREAM_BW_REQUEST:
                kbit_s = message.optional_number(ParameterType.BANDWIDTH)
                return [BandwidthRequested(stream_id, kbit_s)]
            case _:  # by the table only data_provision is left
                return [self._provided(message, stream_id)]

    def _provided(self, message: Message, stream_id: int) -> DataProvided:
        data_id = message.number(ParameterType.DATA_ID)
        if data_id != self._streams[stream_id].data_id:
            raise RemoteProtocolError(ErrorStatus.UNKNOWN_DATA_ID, f"data_id {data_id}", message)
        datagrams = message.values(ParameterType.DATAGRAM)
        if not all(datagram_fits(self.section_tspkt_flag, datagram) for datagram in datagrams):
            detail = f"a datagram that section_TSpkt_flag {self.section_tspkt_flag} does not allow"
            raise RemoteProtocolError(ErrorStatus.INVALID_VALUE, detail, message)
        return DataProvided(stream_id, data_id, datagrams)


def _error(status: int, information: bytes) -> tuple[Parameter, ...]:
    statuses: tuple[Parameter, ...] = ((ParameterType.ERROR_STATUS, status),)
    if information:
        return (*statuses, (ParameterType.ERROR_INFORMATION, information))
    return statuses
