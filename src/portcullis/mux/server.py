"""EMMGs at the door: TCP sessions and UDP provisions (TS 103 197 clause 6.2).

Each TCP connection is one `EmmgSession` around dvbwire's state machine; what may be opened is the
`StreamTable`'s to say. A connection that opens no channel, answers no test, has its channel in
error or breaks the rules too often is closed; all of it is counted.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

from dvbwire.simulcrypt import (
    BandwidthRequested,
    ChannelError,
    ChannelSetup,
    ChannelState,
    DataProvided,
    Event,
    MuxConnection,
    PeerSentUnknown,
    ProtocolViolation,
    RemoteProtocolError,
    StreamCloseRequested,
    StreamError,
    StreamSetup,
    TimedOut,
    decode_udp_provision,
    describe_error_status,
)
from portcullis.mux.streams import Channel, RefusedError, Stream, StreamTable, packets_of
from portcullis.runtime.logging import get_logger

MAX_VIOLATIONS = 8  # of one connection
MAX_SESSIONS = 128

log = get_logger("portcullis.mux")


class EmmgDoor:
    """What all sessions share.

    Attributes:
        table: channels and streams.
        counts: datagrams and mishaps since the start, by name.
        sessions: TCP connections.
    """

    def __init__(
        self,
        table: StreamTable,
        provide: Callable[[Stream, list[bytes]], bool],
        announce: Callable[[], None],
    ) -> None:
        """Set up.

        Args:
            table: channels and streams.
            provide: takes the packets of one datagram; False if there is no room.
            announce: called when the streams in `table` have changed.
        """
        self.table = table
        self.counts: Counter[str] = Counter()
        self.sessions: set[EmmgSession] = set()
        self.announce = announce
        self._provide = provide

    def take(self, stream: Stream, section_tspkt_flag: int, datagrams: Sequence[bytes]) -> None:
        """Queue datagrams of an open stream."""
        for datagram in datagrams:
            packets = packets_of(section_tspkt_flag, datagram)
            if packets is None:
                self.counts["datagrams_malformed"] += 1
            elif self._provide(stream, packets):
                self.counts["datagrams_taken"] += 1
            else:
                self.counts["datagrams_refused"] += 1


class EmmgSession(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, door: EmmgDoor) -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._connection = MuxConnection(opened_at=self._loop.time())
        self._channel: Channel | None = None
        self._violations = 0
        self._over: str | None = None  # why the connection is to end
        self._timeout: asyncio.TimerHandle | None = None
        self._log = log

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a channel_setup, but not for ever."""
        self._transport = cast("asyncio.Transport", transport)
        self._host = str(transport.get_extra_info("peername")[0])
        self._log = log.bind(peer=self._host)
        self._door.counts["connections"] += 1
        if len(self._door.sessions) >= MAX_SESSIONS:
            self._door.counts["connections_refused"] += 1
            self.close("too many connections")
            return
        self._door.sessions.add(self)
        self._handle([])

    def data_received(self, data: bytes) -> None:
        """Let the state machine read; do what it says."""
        if not self._transport.is_closing():
            self._handle(self._connection.receive(data, self._loop.time()))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (however it was lost)
        """Close what the EMMG had open."""
        self._door.sessions.discard(self)
        self._let_go()

    def close(self, why: str) -> None:
        """End the connection, once what is queued has been sent."""
        if not self._transport.is_closing():
            self._log.info("connection closed", why=why)
            self._let_go()
            self._transport.close()

    def _let_go(self) -> None:
        """Give the ids back at once: the EMMG may connect anew before this connection is gone."""
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
        if self._channel is not None:
            self._door.table.close_channel(self._channel)
            self._log.info("channel closed", client_id=f"0x{self._channel.client_id:08X}")
            self._channel = None

    def _on_timeout(self) -> None:
        self._handle(self._connection.handle_timeout(self._loop.time()))

    def _handle(self, events: Sequence[Event]) -> None:
        for event in events:
            self._on_event(event)
        if data := self._connection.data_to_send():
            self._transport.write(data)
        if self._connection.channel_state in (ChannelState.IN_ERROR, ChannelState.CLOSED):
            self._over = self._over or self._connection.channel_state.value
        if self._over is not None:
            self.close(self._over)
            return
        if self._timeout is not None:
            self._timeout.cancel()
        moment = self._connection.next_timeout()
        self._timeout = None if moment is None else self._loop.call_at(moment, self._on_timeout)

    def _on_event(self, event: Event) -> None:
        match event:
            case DataProvided():
                self._provide(event)
            case ChannelSetup():
                self._open_channel(event)
            case StreamSetup():
                self._open_stream(event)
            case BandwidthRequested():
                self._allocate(event)
            case StreamCloseRequested():
                self._close_stream(event.stream_id)
            case _:
                self._on_news(event)

    def _on_news(self, event: Event) -> None:
        """Take what wants no answer; other news says that all is well."""
        match event:
            case ChannelError() | StreamError():
                self._door.counts["errors_reported"] += 1
                statuses = [describe_error_status(status) for status in event.statuses]
                self._log.warning("EMMG reports an error", statuses=statuses)
            case ProtocolViolation():
                self._violation(event.error)
            case PeerSentUnknown():
                self._door.counts["unknown_ignored"] += 1
            case TimedOut():
                self._door.counts["timeouts"] += 1
                self._over = f"no {event.what.name.lower()}"

    def _open_channel(self, asked: ChannelSetup) -> None:
        try:
            self._channel = self._door.table.open_channel(
                asked.client_id, asked.data_channel_id, asked.section_tspkt_flag, self._host
            )
        except RefusedError as refused:
            self._refused("channel", refused, asked.client_id)
            self._connection.refuse_channel(refused.error_status)
            return
        self._connection.accept_channel(asked.section_tspkt_flag)
        self._log.info(
            "channel open",
            client_id=f"0x{asked.client_id:08X}",
            data_channel_id=asked.data_channel_id,
            version=asked.version,
            section_tspkt_flag=asked.section_tspkt_flag,
        )

    def _open_stream(self, asked: StreamSetup) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            stream = self._door.table.open_stream(
                channel, asked.stream_id, asked.data_id, asked.data_type
            )
        except RefusedError as refused:
            self._refused("stream", refused, channel.client_id)
            self._connection.refuse_stream(asked.stream_id, refused.error_status)
            return
        if not self._connection.accept_stream(asked.stream_id):
            # The EMMG has spoiled it in the same breath, and has been told so.
            self._door.table.close_stream(channel, asked.stream_id)
            return
        self._door.announce()
        self._log.info(
            "stream open",
            client_id=f"0x{stream.client_id:08X}",
            data_id=asked.data_id,
            pid=stream.queue.pid,
        )

    def _allocate(self, asked: BandwidthRequested) -> None:
        if self._channel is not None and asked.stream_id in self._channel.streams:
            stream = self._channel.streams[asked.stream_id]
            kbit_s = self._door.table.allocate(stream, asked.kbit_s)
            self._connection.allocate(asked.stream_id, kbit_s)
            self._log.info("bandwidth", asked_kbit_s=asked.kbit_s, allocated_kbit_s=kbit_s)

    def _close_stream(self, stream_id: int) -> None:
        if self._channel is not None and stream_id in self._channel.streams:
            self._door.table.close_stream(self._channel, stream_id)
        self._connection.confirm_stream_close(stream_id)
        self._log.info("stream closed", stream_id=stream_id)

    def _provide(self, provided: DataProvided) -> None:
        channel = self._channel
        if channel is not None and provided.stream_id in channel.streams:
            stream = channel.streams[provided.stream_id]
            self._door.take(stream, channel.section_tspkt_flag, provided.datagrams)

    def _refused(self, what: str, refused: RefusedError, client_id: int) -> None:
        self._door.counts[f"{what}s_refused"] += 1
        status = describe_error_status(refused.error_status)
        self._log.warning(f"{what} refused", client_id=f"0x{client_id:08X}", status=status)

    def _violation(self, error: RemoteProtocolError) -> None:
        self._door.counts["violations"] += 1
        self._violations += 1
        self._log.warning("EMMG breaks the protocol", error=str(error))
        if self._violations >= MAX_VIOLATIONS:
            self._over = "too many violations"


class UdpProvisions(asyncio.DatagramProtocol):
    """data_provision over UDP, for streams whose channel is open over TCP."""

    def __init__(self, door: EmmgDoor) -> None:
        self._door = door

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002 (ids tell)
        """Queue the datagrams of a stream that is open; there is no answering over UDP."""
        try:
            provision = decode_udp_provision(data)
        except RemoteProtocolError:
            self._door.counts["udp_violations"] += 1
            return
        found = self._door.table.find(provision.client_id, provision.data_id)
        if found is None:
            self._door.counts["udp_unknown"] += 1
            return
        stream, channel = found
        self._door.take(stream, channel.section_tspkt_flag, provision.datagrams)
