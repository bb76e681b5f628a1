"""What both ends of a connection do alike: reading, states, tests, time-outs.

Theory of operation: bytes go in through `receive` and become events; calls on the subclass queue
bytes, taken out with `data_to_send`; every message, sent or received, moves the states through
the transition tables, and one that has no transition is misuse: of this end `LocalProtocolError`,
of the peer `ProtocolViolation`. Time is an argument, in seconds of any monotonic clock; call
`handle_timeout` when `next_timeout` has come.
"""

from abc import ABC, abstractmethod
from collections.abc import Container
from dataclasses import dataclass

from dvbwire.simulcrypt.errors import LocalProtocolError, RemoteProtocolError
from dvbwire.simulcrypt.events import (
    ChannelError,
    Event,
    PeerSentUnknown,
    ProtocolViolation,
    StreamError,
    TestAnswered,
    TimedOut,
)
from dvbwire.simulcrypt.framing import MessageReader
from dvbwire.simulcrypt.grammar import GRAMMAR
from dvbwire.simulcrypt.message import Message
from dvbwire.simulcrypt.registry import ErrorStatus, MessageType, ParameterType, Side
from dvbwire.simulcrypt.transitions import (
    CHANNEL_TRANSITIONS,
    STREAM_TRANSITIONS,
    ChannelState,
    StreamState,
)

Parameter = tuple[ParameterType, int | bytes]

_ERROR_MESSAGES = frozenset({MessageType.CHANNEL_ERROR, MessageType.STREAM_ERROR})


@dataclass(slots=True)
class Stream:
    """One stream of the channel, as set up; forgotten when it is no longer open."""

    state: StreamState
    data_id: int
    data_type: int


class Connection(ABC):
    """One end of one TCP connection, hence of at most one channel.

    Attributes:
        channel_state: where the channel stands.
        version: protocol_version of every message sent.
        client_id: of the channel; 0 at a MUX that has not heard it yet.
        data_channel_id: of the channel; 0 at a MUX that has not heard it yet.
        section_tspkt_flag: what datagrams are: asked for, then as answered.
    """

    _side: Side
    _peer: Side
    _answered_misuse: Container[int]  # message types; answered with an error when misused

    def __init__(self, version: int, response_timeout_s: float, test_after_s: float) -> None:
        self.channel_state = ChannelState.NOT_OPEN
        self.section_tspkt_flag = 0
        self.version = version
        self.client_id = 0
        self.data_channel_id = 0
        self._streams: dict[int, Stream] = {}
        self._response_timeout_s = response_timeout_s
        self._test_after_s = test_after_s
        self._test_at: float | None = None
        self._awaited: dict[tuple[MessageType, int | None], float] = {}
        self._reader = MessageReader()
        self._outbox: list[bytes] = []

    def stream_state(self, stream_id: int) -> StreamState:
        """Return where a stream stands; NOT_OPEN if it is not known."""
        stream = self._streams.get(stream_id)
        return StreamState.NOT_OPEN if stream is None else stream.state

    def data_to_send(self) -> bytes:
        """Return what has been queued since the last call; send it, in order."""
        data = b"".join(self._outbox)
        self._outbox.clear()
        return data

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take what TCP delivered at `now` and return what it means.

        Answers to tests and to misuse are queued: look at `data_to_send` afterwards. Once the
        channel is closed everything is ignored.
        """
        if data:
            self._test_at = now + self._test_after_s
        return [event for raw in self._reader.feed(data) for event in self._take(raw)]

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` wants to be called; None while nothing is awaited."""
        moments = list(self._awaited.values())
        if self.channel_state is ChannelState.OPEN and self._test_at is not None:
            moments.append(self._test_at)
        return min(moments, default=None)

    def handle_timeout(self, now: float) -> list[Event]:
        """Report what has been awaited too long, and queue tests after too long a silence."""
        late = [key for key, moment in self._awaited.items() if moment <= now]
        for key in late:
            del self._awaited[key]
        silent = self._test_at is not None and self._test_at <= now
        if silent and self.channel_state is ChannelState.OPEN:
            self._test(now)
        return [TimedOut(what, stream_id) for what, stream_id in late]

    # What subclasses say of their side.

    @abstractmethod
    def _check_version(self, message: Message) -> None:
        """Raise RemoteProtocolError unless the message is of a version now possible."""

    @abstractmethod
    def _heard(self, message: Message, stream_id: int) -> list[Event]:
        """Return what a message of this side's own peer means; the states have moved."""

    # Sending.

    def _send_channel(self, message_type: MessageType, *parameters: Parameter) -> None:
        """Queue a message of the channel; raises LocalProtocolError if now is not the time."""
        state = CHANNEL_TRANSITIONS.get((self.channel_state, self._side, message_type))
        if state is None:
            raise LocalProtocolError(f"{message_type.name} in {self.channel_state.value}")
        self._queue(message_type, *parameters)
        self._move_channel(state)

    def _send_stream(
        self, message_type: MessageType, stream_id: int, *parameters: Parameter
    ) -> None:
        """Queue a message of a stream; raises LocalProtocolError if now is not the time."""
        before = self.stream_state(stream_id)
        state = STREAM_TRANSITIONS.get((before, self._side, message_type))
        if state is None or self.channel_state is not ChannelState.OPEN:
            where = f"{before.value}, {self.channel_state.value}"
            raise LocalProtocolError(f"{message_type.name} for stream {stream_id} in {where}")
        self._queue(message_type, (ParameterType.DATA_STREAM_ID, stream_id), *parameters)
        self._move_stream(stream_id, state)

    def _queue(self, message_type: MessageType, *parameters: Parameter) -> None:
        ids = (
            (ParameterType.CLIENT_ID, self.client_id),
            (ParameterType.DATA_CHANNEL_ID, self.data_channel_id),
        )
        message = Message.build(self.version, message_type, *ids, *parameters)
        self._outbox.append(message.encode())

    def _send_channel_status(self) -> None:
        self._send_channel(
            MessageType.CHANNEL_STATUS, (ParameterType.SECTION_TSPKT_FLAG, self.section_tspkt_flag)
        )

    def _send_stream_status(self, stream_id: int) -> None:
        stream = self._streams[stream_id]
        self._send_stream(
            MessageType.STREAM_STATUS,
            stream_id,
            (ParameterType.DATA_ID, stream.data_id),
            (ParameterType.DATA_TYPE, stream.data_type),
        )

    def _await(
        self,
        what: MessageType,
        stream_id: int | None,
        now: float,
        timeout_s: float | None = None,
    ) -> None:
        """Expect an answer, by default within the time that all have."""
        if timeout_s is None:
            timeout_s = self._response_timeout_s
        self._awaited[what, stream_id] = now + timeout_s

    def _test(self, now: float) -> None:
        """Ask whether the channel and each open stream are still there."""
        self._test_at = now + self._test_after_s
        self._send_channel(MessageType.CHANNEL_TEST)
        self._await(MessageType.CHANNEL_STATUS, None, now)
        for stream_id, stream in self._streams.items():
            if stream.state is StreamState.OPEN:
                self._send_stream(MessageType.STREAM_TEST, stream_id)
                self._await(MessageType.STREAM_STATUS, stream_id, now)

    # Receiving.

    def _take(self, raw: bytes) -> list[Event]:
        if self.channel_state is ChannelState.CLOSED:
            return []
        try:
            message = self._parse(raw)
            unknown: list[Event] = []
            if message.unknown_parameters or message.type not in GRAMMAR:
                # TS 103 197 4.4.1: unknown messages and parameters shall be ignored
                unknown.append(PeerSentUnknown(message.type, message.unknown_parameters))
            if message.type not in GRAMMAR:
                return unknown
            message.validate()
            if message.is_channel_message:
                return unknown + self._take_channel(message)
            return unknown + self._take_stream(message)
        except RemoteProtocolError as error:
            self._answer_misuse(error)
            return [ProtocolViolation(error)]

    def _parse(self, raw: bytes) -> Message:
        """Parse a message of the session's version; of another, nothing but that is said."""
        try:
            message = Message.parse(raw)
        except RemoteProtocolError as error:
            if error.offending is not None:
                self._check_version(error.offending)
            raise
        self._check_version(message)
        return message

    def _take_channel(self, message: Message) -> list[Event]:
        message_type = MessageType(message.type)
        # TS 103 197 6.2.4.5: error messages may precede any agreement on the ids
        if message_type not in {MessageType.CHANNEL_SETUP, MessageType.CHANNEL_ERROR}:
            self._check_ids(message)
        state = CHANNEL_TRANSITIONS.get((self.channel_state, self._peer, message_type))
        if state is None:
            raise RemoteProtocolError(*self._misuse_of_channel(message), message)
        before = self.channel_state
        self._move_channel(state)
        if message_type is MessageType.CHANNEL_ERROR:
            return [ChannelError(*_error_of(message))]
        if before is ChannelState.IN_ERROR and state is ChannelState.IN_ERROR:
            return []  # crossed the error on the way
        if message_type is MessageType.CHANNEL_TEST:
            self._send_channel_status()
            return []
        if message_type is MessageType.CHANNEL_STATUS and before is ChannelState.OPEN:
            return self._test_answered(message_type, None)
        return self._heard(message, 0)

    def _take_stream(self, message: Message) -> list[Event]:
        if self.channel_state is ChannelState.IN_ERROR:
            return []  # crossed the error on the way
        self._check_ids(message)
        message_type = MessageType(message.type)
        stream_id = message.optional_number(ParameterType.DATA_STREAM_ID)
        if stream_id is None:  # optional in data_provision for the sake of UDP only
            raise RemoteProtocolError(ErrorStatus.MISSING_PARAMETER, "DATA_STREAM_ID", message)
        before = self.stream_state(stream_id)
        state = STREAM_TRANSITIONS.get((before, self._peer, message_type))
        if state is None or self.channel_state is not ChannelState.OPEN:
            raise RemoteProtocolError(*self._misuse_of_stream(message, before), message)
        self._move_stream(stream_id, state)
        if message_type is MessageType.STREAM_ERROR:
            return [StreamError(stream_id, *_error_of(message))]
        if before is state and state in {StreamState.IN_ERROR, StreamState.CLOSING}:
            if message_type is MessageType.STREAM_TEST and state is StreamState.CLOSING:
                self._send_stream_status(stream_id)
            return []  # crossed the error or the request to close on the way
        if message_type is MessageType.STREAM_TEST:
            self._send_stream_status(stream_id)
            return []
        if message_type is MessageType.STREAM_STATUS and before is StreamState.OPEN:
            return self._test_answered(message_type, stream_id)
        return self._heard(message, stream_id)

    def _test_answered(self, message_type: MessageType, stream_id: int | None) -> list[Event]:
        asked = self._awaited.pop((message_type, stream_id), None) is not None
        return [TestAnswered(stream_id)] if asked else []

    def _move_channel(self, state: ChannelState) -> None:
        """Change the state; what a channel no longer open awaited will not come."""
        if state is not self.channel_state:
            self.channel_state = state
            self._awaited.clear()
            if state is not ChannelState.OPEN:
                self._streams.clear()

    def _move_stream(self, stream_id: int, state: StreamState) -> None:
        """Change the state; what the stream awaited in the state before will not come."""
        if state is self.stream_state(stream_id):
            return
        if state is StreamState.NOT_OPEN:
            del self._streams[stream_id]
        elif stream_id in self._streams:
            self._streams[stream_id].state = state
        else:
            self._streams[stream_id] = Stream(state, 0, 0)
        for key in [key for key in self._awaited if key[1] == stream_id]:
            del self._awaited[key]

    # Misuse by the peer.

    def _check_ids(self, message: Message) -> None:
        if self.channel_state is ChannelState.NOT_OPEN:
            return  # nothing agreed; the state machine has its own objection
        client_id = message.number(ParameterType.CLIENT_ID)
        if client_id != self.client_id:
            detail = f"client_id 0x{client_id:08X}"
            raise RemoteProtocolError(ErrorStatus.UNKNOWN_CLIENT_ID, detail, message)
        channel_id = message.optional_number(ParameterType.DATA_CHANNEL_ID)
        if channel_id is None:  # optional in data_provision for the sake of UDP only
            raise RemoteProtocolError(ErrorStatus.MISSING_PARAMETER, "DATA_CHANNEL_ID", message)
        if channel_id != self.data_channel_id:
            detail = f"data_channel_id {channel_id}"
            raise RemoteProtocolError(ErrorStatus.UNKNOWN_DATA_CHANNEL_ID, detail, message)

    def _misuse_of_channel(self, message: Message) -> tuple[ErrorStatus, str]:
        if message.type == MessageType.CHANNEL_SETUP:
            channel_id = message.number(ParameterType.DATA_CHANNEL_ID)
            if channel_id == self.data_channel_id:
                return ErrorStatus.DATA_CHANNEL_ID_IN_USE, f"data_channel_id {channel_id}"
            # TS 103 197 6.2.1: one channel per TCP connection
            return ErrorStatus.TOO_MANY_CHANNELS, "a second channel on one connection"
        name = MessageType(message.type).name
        return ErrorStatus.INVALID_MESSAGE, f"{name} in {self.channel_state.value}"

    def _misuse_of_stream(self, message: Message, state: StreamState) -> tuple[ErrorStatus, str]:
        stream_id = message.number(ParameterType.DATA_STREAM_ID)
        detail = f"{MessageType(message.type).name} for stream {stream_id} in {state.value}"
        if self.channel_state is not ChannelState.OPEN:
            return ErrorStatus.INVALID_MESSAGE, f"{detail}, {self.channel_state.value}"
        if message.type == MessageType.STREAM_SETUP:
            return ErrorStatus.DATA_STREAM_ID_IN_USE, detail
        if state is StreamState.NOT_OPEN:
            return ErrorStatus.UNKNOWN_DATA_STREAM_ID, detail
        return ErrorStatus.INVALID_MESSAGE, detail

    def _answer_misuse(self, error: RemoteProtocolError) -> None:
        """Queue stream_error if the stream can be told, else channel_error, never to an error."""
        message = error.offending
        if (
            message is None
            or message.type in _ERROR_MESSAGES
            or (message.type not in self._answered_misuse)
        ):
            return
        status = (ParameterType.ERROR_STATUS, int(error.error_status))
        stream_id = _readable(message, ParameterType.DATA_STREAM_ID, 2)
        client_id = _readable(message, ParameterType.CLIENT_ID, 4)
        channel_id = _readable(message, ParameterType.DATA_CHANNEL_ID, 2)
        ours = client_id == self.client_id and channel_id == self.data_channel_id
        if (
            self.channel_state is ChannelState.OPEN
            and ours
            and stream_id is not None
            and not message.is_channel_message
            and error.error_status is not ErrorStatus.UNSUPPORTED_VERSION
        ):
            if (self.stream_state(stream_id), self._side, MessageType.STREAM_ERROR) in (
                STREAM_TRANSITIONS
            ):
                self._send_stream(MessageType.STREAM_ERROR, stream_id, status)
        elif self.channel_state is ChannelState.OPEN and ours:
            self._send_channel(MessageType.CHANNEL_ERROR, status)
        else:  # an error of a channel that is not this one, or not yet: its ids as they came
            self._outbox.append(
                Message.build(
                    self.version,
                    MessageType.CHANNEL_ERROR,
                    (ParameterType.CLIENT_ID, client_id or 0),
                    (ParameterType.DATA_CHANNEL_ID, channel_id or 0),
                    status,
                ).encode()
            )


def _error_of(message: Message) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    return (
        message.numbers(ParameterType.ERROR_STATUS),
        message.values(ParameterType.ERROR_INFORMATION),
    )


def _readable(message: Message, parameter: ParameterType, size: int) -> int | None:
    """Return an id of a message that may be damaged; None if it cannot be told."""
    values = message.values(parameter)
    return int.from_bytes(values[0]) if values and len(values[0]) == size else None
