"""The connection to one multiplexer: sockets and timers around `EmmgConnection`.

It connects for as long as it runs, with back-off and jitter, and keeps the
channel open. The stream is set up only while `wanted`, so that a standby does
not hold what another needs; "in use" means wait.
"""

import asyncio
import errno
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple, cast

import numpy as np

from dvbwire.simulcrypt import (
    BandwidthAllocated,
    ChannelError,
    ChannelState,
    DataType,
    EmmgConnection,
    ErrorStatus,
    Event,
    MessageType,
    PeerSentUnknown,
    ProtocolViolation,
    SectionTspktFlag,
    StreamClosed,
    StreamError,
    StreamOpened,
    StreamState,
    TimedOut,
    describe_error_status,
)
from dvbwire.ts import PACKET_SIZE
from portcullis.cycler.config import StreamConfig
from portcullis.runtime.logging import get_logger
from portcullis.runtime.service import split_address
from portcullis.runtime.tls import TlsFiles

# For TCP, and again for channel_setup: one begun into silence ends in time for the next, when
# the MUX is back, to be on air within 5 s.
_CONNECT_TIMEOUT_S = 2.5
_BACK_OFF_S, _MAX_BACK_OFF_S = 0.25, 1.0
_SETTLED_S = 5.0  # a session that lasted this long was a good one
_IN_USE_RETRY_S = 1.0
_UDP_SETTLE_S = 0.1  # TCP may overtake UDP
_CLOSE_TIMEOUT_S = 2.0
_UDP_SEGMENT = 103  # udp(7): the kernel cuts what is sent into datagrams of this size
_AT_ONCE = 64_000  # bytes: UDP carries little more
# The interface cannot: no checksum in hardware, a small MTU, an old kernel.
_CANNOT_CUT = {errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP}
_U16 = struct.Struct("=H")
_IN_USE = range(ErrorStatus.DATA_CHANNEL_ID_IN_USE, ErrorStatus.CLIENT_ID_IN_USE + 1)

log = get_logger("portcullis.cycler.link")


class LinkState(Enum):
    """Where the link stands."""

    DOWN = "down"
    CHANNEL_OPEN = "channel_open"
    IN_USE = "in_use"
    STREAM_OPEN = "stream_open"


class Provisions(NamedTuple):
    """Data_provisions of transport packets, one behind the other.

    Attributes:
        size: bytes of each; the last may have less.
    """

    data: memoryview
    size: int

    def some(self, start: int, stop: int) -> "Provisions":
        """Those from `start` to `stop`."""
        return Provisions(self.data[start * self.size : stop * self.size], self.size)


class Link:
    """One stream's way to its multiplexer.

    Attributes:
        state: see `LinkState`.
        down_since: monotonic time since when there has been no channel; None while there is.
        counts: mishaps and messages, by kind.
        allocated_kbit_s: what the stream may send; what was asked where the MUX does not say.
    """

    def __init__(self, config: StreamConfig, changed: Callable[[], None]) -> None:
        self.config = config
        self.state = LinkState.DOWN
        self.down_since: float | None = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.allocated_kbit_s = 0
        self.wanted = False
        self.changed = changed
        self._tls = TlsFiles.of(config.tls, f"cycler.stream {config.name}: tls")
        self._session: _Session | None = None
        self._log = log.bind(stream=config.name, mux=config.mux)

    @property
    def ready(self) -> bool:
        """Whether EMMs may be sent now."""
        return self.wanted and self._session is not None and self._session.ready

    @property
    def sends_sections(self) -> bool:
        """Whether the MUX wants sections rather than packets."""
        flag = self._session.connection.section_tspkt_flag if self._session else 1
        return flag == SectionTspktFlag.SECTIONS

    def want(self, *, wanted: bool) -> None:
        """Set the stream up, or close it, now or as soon as the channel is open."""
        if wanted != self.wanted:
            self.wanted = wanted
            if self._session is not None:
                self._session.steer()

    def send(self, messages: Sequence[Sequence[bytes]]) -> None:
        """Hand the datagrams of each data_provision to the multiplexer; only while `ready`."""
        if self._session is not None:
            self._session.send(messages)

    def provisions(self, packets: bytes | memoryview, most: int) -> Provisions:
        """Make data_provisions of so many transport packets each; only while `ready`."""
        assert self._session is not None  # noqa: S101 (it is ready)
        return self._session.provisions(packets, most)

    def send_provisions(self, provisions: Provisions) -> None:
        """Hand data_provisions over; only while `ready`."""
        if self._session is not None:
            self._session.send_provisions(provisions)

    async def run(self) -> None:
        """Keep connected until cancelled."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self._connect()
            failures = 0 if loop.time() - began > _SETTLED_S else failures + 1
            back_off = min(_MAX_BACK_OFF_S, _BACK_OFF_S * 2 ** min(failures, 10))
            await asyncio.sleep(back_off * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)  # nosec B311

    async def close(self) -> None:
        """Close stream and channel politely; bounded by 2 s."""
        if self._session is None:
            return
        if self.config.provision == "udp":
            await asyncio.sleep(_UDP_SETTLE_S)
        self.want(wanted=False)
        session = self._session
        try:
            await asyncio.wait_for(session.stream_closed.wait(), _CLOSE_TIMEOUT_S)
        except TimeoutError:
            self._log.warning("the multiplexer does not answer stream_close_request")
        session.close()

    async def _connect(self) -> None:
        """One session, from connect to the end of the connection."""
        loop = asyncio.get_running_loop()
        host, port = split_address(self.config.mux, "cycler.stream.mux")
        udp: socket.socket | None = None
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                if self.config.provision == "udp":
                    udp = await _udp_to(host, port)
                context = self._tls.client_context() if self._tls is not None else None
                _, session = await loop.create_connection(
                    lambda: _Session(self, udp), host, port, ssl=context
                )
        except OSError as error:  # TimeoutError is one
            self.counts["connect_failed"] += 1
            self._log.warning("cannot connect", reason=str(error) or "timeout")
            if udp is not None:
                udp.close()
            return
        self._session = session
        try:
            await session.ended.wait()
        finally:
            session.close()
            self._session = None
            self.enter(LinkState.DOWN)
            if udp is not None:
                udp.close()

    def enter(self, state: LinkState) -> None:
        """Note where the link stands, and tell whoever airs."""
        if state is not self.state:
            self._log.info("link", state=state.value)
            self.state = state
            self.down_since = time.monotonic() if state is LinkState.DOWN else None
        self.changed()


async def _udp_to(host: str, port: int) -> socket.socket:
    """A UDP socket that never blocks; raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    udp = socket.socket(family, kind, protocol)
    udp.setblocking(False)  # noqa: FBT003 (the socket's own way)
    try:
        udp.connect(address)
    except OSError:
        udp.close()
        raise
    return udp


class _Session(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, link: Link, udp: socket.socket | None) -> None:
        config = link.config
        self.ended = asyncio.Event()
        self.stream_closed = asyncio.Event()
        self.stream_closed.set()
        flag = SectionTspktFlag.SECTIONS if config.format == "sections" else 1
        self.connection = EmmgConnection(
            config.version,
            config.client_id,
            config.data_channel_id,
            flag,
            setup_timeout_s=_CONNECT_TIMEOUT_S,
        )
        self._link = link
        self._config = config
        self._udp = udp
        self._cuts_udp = sys.platform == "linux"
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self._is_allocated = False
        self._retry_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._now = asyncio.get_running_loop().time
        self._log = log.bind(stream=config.name, mux=config.mux)

    @property
    def ready(self) -> bool:
        return self._is_allocated and not self._is_paused and self._is_open

    @property
    def _is_open(self) -> bool:
        return (
            self.connection.channel_state is ChannelState.OPEN
            and self.connection.stream_state(self._config.data_stream_id) is StreamState.OPEN
        )

    def send(self, messages: Sequence[Sequence[bytes]]) -> None:
        stream_id, connection = self._config.data_stream_id, self.connection
        if self._udp is not None:
            for provision in connection.provide_all_udp(stream_id, messages):
                self._send_udp(provision)
        elif self._transport is not None:
            self._transport.write(b"".join(connection.provide_all(stream_id, messages)))

    def provisions(self, packets: bytes | memoryview, most: int) -> Provisions:
        stream_id, connection = self._config.data_stream_id, self.connection
        is_udp = self._udp is not None
        before_packets = connection.before_packets_udp if is_udp else connection.before_packets
        before = before_packets(stream_id, packets, most)
        head, size = len(before), most * PACKET_SIZE
        count, rest = divmod(len(packets), size)
        last = b""
        if rest:
            provide = connection.provide_udp if is_udp else connection.provide
            last = provide(stream_id, [bytes(packets[-rest:])])
        end = count * (head + size)
        data = np.empty(end + len(last), np.uint8)
        whole = data[:end].reshape(count, head + size)
        whole[:, :head] = np.frombuffer(before, np.uint8)
        whole[:, head:] = np.frombuffer(packets, np.uint8, count * size).reshape(count, size)
        data[end:] = np.frombuffer(last, np.uint8)
        return Provisions(data.data, head + size)

    def send_provisions(self, provisions: Provisions) -> None:
        data, size = provisions
        if self._udp is not None:
            at_once = _AT_ONCE // size * size
            for start in range(0, len(data), at_once):
                self._send_udp_all(data[start : start + at_once], size)
        elif self._transport is not None:
            self._transport.write(data)

    def _send_udp(self, provision: bytes | memoryview) -> None:
        assert self._udp is not None  # noqa: S101 (the callers have looked)
        try:
            self._udp.send(provision)
        except OSError:  # full, or the network says that nobody hears: counted, repeated
            self._link.counts["udp_error"] += 1

    def _send_udp_all(self, provisions: bytes | memoryview, size: int) -> None:
        """Send datagrams of so many bytes in one call, where the kernel cuts them apart."""
        assert self._udp is not None  # noqa: S101 (the callers have looked)
        if self._cuts_udp and len(provisions) > size:
            try:
                self._udp.sendmsg([provisions], [(socket.SOL_UDP, _UDP_SEGMENT, _U16.pack(size))])
            except OSError as error:
                self._cuts_udp = error.errno not in _CANNOT_CUT
                if self._cuts_udp:
                    self._link.counts["udp_error"] += 1
            if self._cuts_udp:
                return
        for start in range(0, len(provisions), size):
            self._send_udp(provisions[start : start + size])

    def steer(self) -> None:
        """Bring the stream to where it is wanted, and send what is queued."""
        connection, stream_id = self.connection, self._config.data_stream_id
        if connection.channel_state is ChannelState.OPEN:
            state, now = connection.stream_state(stream_id), self._now()
            if self._link.wanted and state is StreamState.NOT_OPEN and now >= self._retry_at:
                self.stream_closed.clear()
                connection.open_stream(stream_id, self._config.data_id, DataType.EMM, now)
            elif not self._link.wanted and state is StreamState.OPEN:
                self._is_allocated = False
                connection.close_stream(stream_id, now)
        self._flush()

    def close(self) -> None:
        """Close channel and connection."""
        if self._transport is None or self._transport.is_closing():
            return
        if self.connection.channel_state is ChannelState.OPEN:
            self.connection.close_channel()
            self._flush()
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock: Any = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.open_channel(self._now())
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._handle(self.connection.receive(data, self._now()))

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._link.counts["connection_lost"] += 1
        if self._timer is not None:
            self._timer.cancel()
        self._is_allocated = False
        self.stream_closed.set()
        self.ended.set()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._link.changed()

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            self._hear(event)
        self.steer()

    def _hear(self, event: Event) -> None:  # noqa: C901 (one short case per event)
        link, stream_id = self._link, self._config.data_stream_id
        match event:
            case StreamOpened():
                if self._is_open:  # an error that came along with it may have ended it again
                    self.connection.request_bandwidth(
                        stream_id, self._config.bandwidth_kbit_s, self._now()
                    )
            case BandwidthAllocated():
                asked = self._config.bandwidth_kbit_s
                self._allocate(asked if event.kbit_s is None else event.kbit_s)
            case StreamClosed():
                self.stream_closed.set()
                link.enter(LinkState.CHANNEL_OPEN)
            case StreamError():
                self._refused(event.statuses)
            case ChannelError():
                self._give_up("channel_error", event.statuses)
            case TimedOut(what=MessageType.STREAM_BW_ALLOCATION):
                link.counts["no_allocation"] += 1
                self._allocate(self._config.bandwidth_kbit_s)
            case TimedOut():
                self._give_up(f"timed_out_{event.what.name.lower()}", ())
            case ProtocolViolation():
                self._log.warning("the multiplexer broke the protocol", reason=str(event.error))
                self._give_up("protocol_violation", ())
            case PeerSentUnknown():
                link.counts["unknown"] += 1
            case _:  # ChannelOpened and TestAnswered: `steer` and the timer see to the rest
                pass
        if self.connection.channel_state is ChannelState.OPEN and link.state is LinkState.DOWN:
            link.enter(LinkState.CHANNEL_OPEN)

    def _allocate(self, kbit_s: int) -> None:
        self._is_allocated = True
        self._link.allocated_kbit_s = kbit_s
        self._link.enter(LinkState.STREAM_OPEN)

    def _refused(self, statuses: tuple[int, ...]) -> None:
        """An "in use" is asked again; all else costs the connection."""
        still_open = self.connection.stream_state(self._config.data_stream_id)
        if still_open is StreamState.NOT_OPEN and any(status in _IN_USE for status in statuses):
            self._link.counts["in_use"] += 1
            self.stream_closed.set()
            self._retry_at = self._now() + _IN_USE_RETRY_S
            asyncio.get_running_loop().call_at(self._retry_at + 0.001, self._retry)
            self._link.enter(LinkState.IN_USE)
        else:
            self._give_up("stream_error", statuses)

    def _retry(self) -> None:
        if not self.ended.is_set():
            self.steer()

    def _give_up(self, kind: str, statuses: tuple[int, ...]) -> None:
        self._link.counts[kind] += 1
        self._log.warning(kind, statuses=[describe_error_status(status) for status in statuses])
        self._is_allocated = False
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        """Send what is queued and wait for the next time-out."""
        data = self.connection.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
        if self._timer is not None:
            self._timer.cancel()
        moment = self.connection.next_timeout()
        if moment is not None and not self.ended.is_set():
            self._timer = asyncio.get_running_loop().call_at(moment, self._timed_out)

    def _timed_out(self) -> None:
        self._handle(self.connection.handle_timeout(self._now()))
