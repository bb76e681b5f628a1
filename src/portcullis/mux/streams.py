"""Who provides what: channels and EMM streams of all EMMGs, their ids, PIDs and bandwidth. Pure.

client_id names an EMMG among all (TS 103 197 clause 6.2.4), data_channel_id a channel of one
client, (client_id, data_id) a stream among all. A stream keeps its PID and its place in the CAT
when its EMMG goes away: boxes must find the PID while the EMMG connects again. Only when a new
stream finds no PID free does the one closed longest lose its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from dvbwire.psi import CaDescriptor
from dvbwire.simulcrypt import DataType, ErrorStatus, SectionTspktFlag
from dvbwire.ts import NULL_PID, PACKET_SIZE, SYNC_BYTE, TsError, packetize_section
from portcullis.mux.inserter import EmmQueue

MAX_CHANNELS = 64
_QUEUE_S = 1.0


class RefusedError(Exception):
    """What an EMMG asks for cannot be granted; `error_status` is the answer."""

    def __init__(self, error_status: ErrorStatus) -> None:
        super().__init__(error_status.name.lower())
        self.error_status = error_status


@dataclass(eq=False, slots=True)
class Stream:
    """One stream, open or remembered.

    Attributes:
        client_id: 32 bits.
        data_id: 16 bits.
        data_type: EMM or private data.
        queue: what waits for the air, with the PID.
        allocated_kbit_s: what the EMMG was granted.
        is_open: whether an EMMG provides it now.
    """

    client_id: int
    data_id: int
    data_type: int
    queue: EmmQueue
    allocated_kbit_s: int
    is_open: bool = True


@dataclass(eq=False, slots=True)
class Channel:
    """One channel of one EMMG.

    Attributes:
        client_id: 32 bits.
        data_channel_id: 16 bits.
        section_tspkt_flag: what its datagrams are.
        host: address of the EMMG.
        streams: those open, by data_stream_id.
    """

    client_id: int
    data_channel_id: int
    section_tspkt_flag: int
    host: str
    streams: dict[int, Stream] = field(default_factory=dict)


class StreamTable:
    """All channels and streams of the multiplexer."""

    def __init__(self, first_pid: int, max_streams: int, max_kbit_s: int) -> None:
        self._pids = range(first_pid, first_pid + max_streams)
        self._max_kbit_s = max_kbit_s
        self._channels: list[Channel] = []
        self._streams: dict[tuple[int, int], Stream] = {}  # the closed ones in the order of closing

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._streams.values())

    @property
    def pids(self) -> range:
        """Every PID a stream may get."""
        return self._pids

    @property
    def channels(self) -> int:
        """How many channels are open."""
        return len(self._channels)

    @property
    def allocated_kbit_s(self) -> int:
        """The sum over the open streams."""
        return sum(stream.allocated_kbit_s for stream in self if stream.is_open)

    def open_channel(
        self, client_id: int, data_channel_id: int, section_tspkt_flag: int, host: str
    ) -> Channel:
        """Note a channel; raises RefusedError (0x0007, 0x000D, 0x0011, 0x0014)."""
        if section_tspkt_flag not in (SectionTspktFlag.SECTIONS, SectionTspktFlag.PACKETS):
            raise RefusedError(ErrorStatus.INVALID_VALUE)
        for other in self._channels:
            if other.client_id != client_id:
                continue
            if other.host != host:
                raise RefusedError(ErrorStatus.CLIENT_ID_IN_USE)
            if other.data_channel_id == data_channel_id:
                raise RefusedError(ErrorStatus.DATA_CHANNEL_ID_IN_USE)
        if len(self._channels) >= MAX_CHANNELS:
            raise RefusedError(ErrorStatus.TOO_MANY_CHANNELS)
        channel = Channel(client_id, data_channel_id, section_tspkt_flag, host)
        self._channels.append(channel)
        return channel

    def close_channel(self, channel: Channel) -> None:
        """Forget a channel; its streams are closed."""
        self._channels.remove(channel)
        for stream_id in list(channel.streams):
            self.close_stream(channel, stream_id)

    def open_stream(self, channel: Channel, stream_id: int, data_id: int, data_type: int) -> Stream:
        """Open a stream, with the PID it had before; raises RefusedError (0x0009, 0x0013)."""
        key = (channel.client_id, data_id)
        stream = self._streams.pop(key, None)
        if stream is None:
            queue = EmmQueue(self._free_pid(), self._queue_packets())
            stream = Stream(*key, data_type, queue, self._max_kbit_s)
        elif stream.is_open:
            self._streams[key] = stream
            raise RefusedError(ErrorStatus.DATA_ID_IN_USE)
        stream.is_open = True
        stream.data_type = data_type
        stream.allocated_kbit_s = self._max_kbit_s
        self._streams[key] = stream
        channel.streams[stream_id] = stream
        return stream

    def close_stream(self, channel: Channel, stream_id: int) -> None:
        """Close a stream; PID and place in the CAT are kept."""
        stream = channel.streams.pop(stream_id)
        stream.is_open = False
        key = (stream.client_id, stream.data_id)
        self._streams[key] = self._streams.pop(key)

    def allocate(self, stream: Stream, asked_kbit_s: int | None) -> int:
        """Grant what was asked up to the limit (None: what is granted already); kbit/s."""
        if asked_kbit_s is not None:
            stream.allocated_kbit_s = min(asked_kbit_s, self._max_kbit_s)
        return stream.allocated_kbit_s

    def find(self, client_id: int, data_id: int) -> tuple[Stream, Channel] | None:
        """Return the open stream of these ids and its channel."""
        for channel in self._channels:
            for stream in channel.streams.values():
                if (stream.client_id, stream.data_id) == (client_id, data_id):
                    return stream, channel
        return None

    def descriptors(self) -> list[CaDescriptor]:
        """Return what the CAT must say, in the order of PIDs; private data is not in it."""
        return [
            CaDescriptor(stream.client_id >> 16, stream.queue.pid)
            for stream in sorted(self, key=lambda each: each.queue.pid)
            if stream.data_type == DataType.EMM
        ]

    def _free_pid(self) -> int:
        taken = {stream.queue.pid for stream in self}
        for pid in self._pids:
            if pid not in taken:
                return pid
        for key, stream in self._streams.items():
            if not stream.is_open:
                del self._streams[key]
                return stream.queue.pid
        raise RefusedError(ErrorStatus.TOO_MANY_STREAMS_ON_MUX)

    def _queue_packets(self) -> int:
        return max(64, round(_QUEUE_S * self._max_kbit_s * 1000 / 8 / PACKET_SIZE))


def packets_of(section_tspkt_flag: int, datagram: bytes) -> list[bytes] | None:
    """Return the packets of one datagram, PID and counter still to be set.

    None if it is not what the flag says: one whole section, or packets that have a payload and are
    neither damaged nor scrambled.
    """
    if section_tspkt_flag == SectionTspktFlag.SECTIONS:
        try:
            return packetize_section(datagram, NULL_PID)
        except TsError:
            return None
    starts = range(0, len(datagram), PACKET_SIZE)
    packets = [datagram[at : at + PACKET_SIZE] for at in starts]
    return packets if packets and all(_is_usable(packet) for packet in packets) else None


def _is_usable(packet: bytes) -> bool:
    return (
        len(packet) == PACKET_SIZE
        and packet[0] == SYNC_BYTE
        and not packet[1] & 0x80  # transport_error_indicator
        and packet[3] & 0xD0 == 0x10  # noqa: PLR2004 (clear, with a payload)
    )
