"""The EMMG/PDG end of a connection: the one that sets up and provides."""

from collections.abc import Sequence

from dvbwire.simulcrypt.connection import Connection
from dvbwire.simulcrypt.errors import LocalProtocolError, RemoteProtocolError
from dvbwire.simulcrypt.events import (
    BandwidthAllocated,
    ChannelOpened,
    Event,
    StreamClosed,
    StreamOpened,
)
from dvbwire.simulcrypt.message import Message
from dvbwire.simulcrypt.provision import (
    before_datagram,
    before_udp_datagram,
    datagram_fits,
    encode_provision,
    encode_udp_message,
    provision_head,
    udp_provision_head,
)
from dvbwire.simulcrypt.registry import (
    SUPPORTED_VERSIONS,
    ErrorStatus,
    MessageType,
    ParameterType,
    SectionTspktFlag,
    Side,
)
from dvbwire.simulcrypt.transitions import ChannelState, StreamState
from dvbwire.ts import PACKET_SIZE, SYNC_BYTE

_SYNC = bytes((SYNC_BYTE,))


class EmmgConnection(Connection):
    """One connection of an EMMG or PDG to a multiplexer, without the socket.

    Calls queue their message; `data_to_send` hands it out. Only `provide` and `provide_udp` return
    their bytes at once. A call out of order raises LocalProtocolError and queues nothing. When
    an open channel fails, or an answer does not come, close TCP and start with a new object.
    """

    _side = Side.EMMG
    _peer = Side.MUX
    # TS 103 197 6.2.4.2, 6.2.5.2: a test wants an answer; all else is for our operator to see
    _answered_misuse = frozenset({MessageType.CHANNEL_TEST, MessageType.STREAM_TEST})

    def __init__(
        self,
        version: int,
        client_id: int,
        data_channel_id: int,
        section_tspkt_flag: int,
        *,
        setup_timeout_s: float = 5.0,
        response_timeout_s: float = 5.0,
        test_after_s: float = 10.0,
    ) -> None:
        """Prepare a connection; nothing is queued yet.

        Args:
            version: protocol_version to speak: 2, 3 or 5.
            client_id: 32 bits, CA_system_id in the upper 16.
            data_channel_id: 16 bits, unique for the client_id on the MUX.
            section_tspkt_flag: what to ask for; what is answered must be obeyed.
            setup_timeout_s: how long to wait for the answer to channel_setup.
            response_timeout_s: how long to wait for each other answer.
            test_after_s: silence of the peer after which channel and streams are tested.

        Raises:
            LocalProtocolError: the version is not one of these.
        """
        if version not in SUPPORTED_VERSIONS:
            raise LocalProtocolError(f"version {version}")
        super().__init__(version, response_timeout_s, test_after_s)
        self.client_id = client_id
        self.data_channel_id = data_channel_id
        self.section_tspkt_flag = section_tspkt_flag
        self._setup_timeout_s = setup_timeout_s
        self._provision_heads: dict[int, bytes] = {}
        self._udp_heads: dict[int, bytes] = {}

    def open_channel(self, now: float) -> None:
        """Ask for the channel; ChannelOpened or ChannelError follows."""
        flag = (ParameterType.SECTION_TSPKT_FLAG, self.section_tspkt_flag)
        self._send_channel(MessageType.CHANNEL_SETUP, flag)
        self._await(MessageType.CHANNEL_STATUS, None, now, self._setup_timeout_s)

    def open_stream(self, stream_id: int, data_id: int, data_type: int, now: float) -> None:
        """Ask for a stream on the open channel; StreamOpened or StreamError follows."""
        self._send_stream(
            MessageType.STREAM_SETUP,
            stream_id,
            (ParameterType.DATA_ID, data_id),
            (ParameterType.DATA_TYPE, data_type),
        )
        self._await(MessageType.STREAM_STATUS, stream_id, now)
        stream = self._streams[stream_id]
        stream.data_id, stream.data_type = data_id, data_type
        self._provision_heads[stream_id] = provision_head(
            (ParameterType.CLIENT_ID, self.client_id),
            (ParameterType.DATA_CHANNEL_ID, self.data_channel_id),
            (ParameterType.DATA_STREAM_ID, stream_id),
            (ParameterType.DATA_ID, data_id),
        )
        self._udp_heads[stream_id] = udp_provision_head(self.client_id, data_id)

    def request_bandwidth(self, stream_id: int, kbit_s: int | None, now: float) -> None:
        """Ask for bandwidth, or with None what is allocated; BandwidthAllocated follows."""
        self._require_open(stream_id)
        wanted = () if kbit_s is None else ((ParameterType.BANDWIDTH, kbit_s),)
        self._send_stream(MessageType.STREAM_BW_REQUEST, stream_id, *wanted)
        self._await(MessageType.STREAM_BW_ALLOCATION, stream_id, now)

    def provide(self, stream_id: int, datagrams: Sequence[bytes]) -> bytes:
        """Return one data_provision to send over this connection, after what is queued.

        Args:
            stream_id: an open stream.
            datagrams: each one whole section, or each one or more whole transport packets, as
                `section_tspkt_flag` says.

        Raises:
            LocalProtocolError: the stream is not open, a datagram does not fit the flag, or they
                are too many for one message.
        """
        return self.provide_all(stream_id, [datagrams])[0]

    def provide_all(self, stream_id: int, messages: Sequence[Sequence[bytes]]) -> list[bytes]:
        """Return one data_provision for the datagrams of each message; as `provide`."""
        self._check_provisions(stream_id, messages)
        version, head = self.version, self._provision_heads[stream_id]
        return [encode_provision(version, head, datagrams) for datagrams in messages]

    def before_packets(self, stream_id: int, packets: bytes | memoryview, most: int) -> bytes:
        """Return what comes before the packets in a data_provision of `most` of these.

        It is the same in each: whoever cuts many packets into messages puts it before every piece.

        Raises:
            LocalProtocolError: the stream is not open, these are no transport packets or not what
                `section_tspkt_flag` says, or `most` are too many for one message.
        """
        self._check_packets(stream_id, packets)
        return before_datagram(self.version, self._provision_heads[stream_id], most * PACKET_SIZE)

    def provide_udp(self, stream_id: int, datagrams: Sequence[bytes]) -> bytes:
        """Return the same as one UDP datagram, to be sent beside this connection.

        Before closing a stream provided over UDP let about 100 ms pass: TCP may overtake.

        Raises:
            LocalProtocolError: as `provide`.
        """
        return self.provide_all_udp(stream_id, [datagrams])[0]

    def provide_all_udp(self, stream_id: int, messages: Sequence[Sequence[bytes]]) -> list[bytes]:
        """Return one UDP datagram for the datagrams of each message; as `provide_udp`."""
        self._check_provisions(stream_id, messages)
        version, head = self.version, self._udp_heads[stream_id]
        return [encode_udp_message(version, head, datagrams) for datagrams in messages]

    def before_packets_udp(self, stream_id: int, packets: bytes | memoryview, most: int) -> bytes:
        """Return the same for UDP datagrams."""
        self._check_packets(stream_id, packets)
        return before_udp_datagram(self.version, self._udp_heads[stream_id], most * PACKET_SIZE)

    def close_stream(self, stream_id: int, now: float) -> None:
        """Say that a stream ends; StreamClosed follows."""
        self._send_stream(MessageType.STREAM_CLOSE_REQUEST, stream_id)
        self._await(MessageType.STREAM_CLOSE_RESPONSE, stream_id, now)

    def close_channel(self) -> None:
        """Say that the channel ends: there is no answer; send what is queued, then close TCP."""
        self._send_channel(MessageType.CHANNEL_CLOSE)

    def _check_packets(self, stream_id: int, packets: bytes | memoryview) -> None:
        self._require_open(stream_id)
        count, rest = divmod(len(packets), PACKET_SIZE)
        is_whole = count and not rest and packets[::PACKET_SIZE] == _SYNC * count
        if not is_whole or self.section_tspkt_flag == SectionTspktFlag.SECTIONS:
            detail = f"{len(packets)} bytes with section_TSpkt_flag {self.section_tspkt_flag}"
            raise LocalProtocolError(f"transport packets of {detail}")

    def _check_provisions(self, stream_id: int, messages: Sequence[Sequence[bytes]]) -> None:
        self._require_open(stream_id)
        flag = self.section_tspkt_flag
        for datagrams in messages:
            for datagram in datagrams:
                if not datagram_fits(flag, datagram):
                    detail = f"{len(datagram)} bytes with section_TSpkt_flag {flag}"
                    raise LocalProtocolError(f"datagram of {detail}")

    def _require_open(self, stream_id: int) -> None:
        """Raise LocalProtocolError unless the stream is open; crossing is for messages only."""
        if (
            self.stream_state(stream_id) is not StreamState.OPEN
            or self.channel_state is not ChannelState.OPEN
        ):
            raise LocalProtocolError(f"stream {stream_id} is not open")

    def _check_version(self, message: Message) -> None:
        # TS 103 197 6.2.6: a MUX that does not speak our version says so in its own
        if message.version != self.version and message.type != MessageType.CHANNEL_ERROR:
            raise RemoteProtocolError(
                ErrorStatus.UNSUPPORTED_VERSION,
                f"version {message.version} in a session of version {self.version}",
                message,
            )

    def _heard(self, message: Message, stream_id: int) -> list[Event]:
        match message.type:
            case MessageType.CHANNEL_STATUS:
                self.section_tspkt_flag = message.number(ParameterType.SECTION_TSPKT_FLAG)
                return [ChannelOpened(self.section_tspkt_flag)]
            case MessageType.STREAM_STATUS:
                return [StreamOpened(stream_id)]
            case MessageType.STREAM_BW_ALLOCATION:
                self._awaited.pop((MessageType.STREAM_BW_ALLOCATION, stream_id), None)
                kbit_s = message.optional_number(ParameterType.BANDWIDTH)
                return [BandwidthAllocated(stream_id, kbit_s)]
            case _:  # by the table only stream_close_response is left
                return [StreamClosed(stream_id)]
