"""Where the input stream comes from: a filler of our own, a file played for ever, or UDP."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from dvbwire.psi import PAT_PID, Pat
from dvbwire.ts import NULL_PACKET, PACKET_SIZE, PacketSync, packetize_section
from portcullis.mux.looping import LoopSeam, RateMeter
from portcullis.runtime.config import ConfigError
from portcullis.runtime.errors import PortcullisError

_CHUNK_BYTES = PACKET_SIZE * 512
_MEASURED_BYTES = 64 << 20
_PAT_PERIOD_S = 0.1
_TRANSPORT_STREAM_ID = 1
_RECEIVE_BUFFER_BYTES = 16 << 20


class InputError(PortcullisError):
    """The input has stopped being a transport stream."""


class PacedInput(Protocol):
    """An input that has packets whenever they are asked for.

    Attributes:
        bits_per_s: the rate at which to ask.
    """

    bits_per_s: float

    def take(self, count: int) -> list[bytes]:
        """Return the next `count` packets."""
        ...

    def close(self) -> None:
        """Let go of what is held."""
        ...


class FillerInput:
    """Null packets, and a PAT without programmes every 100 ms."""

    def __init__(self, bits_per_s: float) -> None:
        self.bits_per_s = bits_per_s
        self._pat = Pat(_TRANSPORT_STREAM_ID, 0, {}).to_section()
        self._pat_every = round(bits_per_s / 8 / PACKET_SIZE * _PAT_PERIOD_S)
        self._sent = 0

    def take(self, count: int) -> list[bytes]:
        """Return the next `count` packets."""
        packets = []
        for at in range(self._sent, self._sent + count):
            number, place = divmod(at, self._pat_every)
            if place == 0:
                packets += packetize_section(self._pat, PAT_PID, number % 16)
            else:
                packets.append(NULL_PACKET)
        self._sent += count
        return packets

    def close(self) -> None:
        """Hold nothing, so let go of nothing."""


class FileInput:
    """A recorded transport stream, played for ever; its end is joined to its beginning."""

    def __init__(self, path: Path, bits_per_s: float | None) -> None:
        """Open the file and find its rate.

        Args:
            path: the recording; may begin or end within a packet.
            bits_per_s: None: as the PCRs of its first 64 MiB tell.

        Raises:
            ConfigError: unreadable, no packets, or no rate known.
        """
        self._path = path
        try:
            self.bits_per_s = bits_per_s or _measure(path)
            self._file = path.open("rb")
        except OSError as error:
            raise ConfigError(f"mux.input: {path}: {error.strerror}") from error
        self._seam = LoopSeam()
        self._sync = PacketSync()
        self._packets: deque[bytes] = deque()

    def take(self, count: int) -> list[bytes]:
        """Return the next `count` packets; raises InputError if the file has none any more."""
        packets = self._packets
        while len(packets) < count:
            before = len(packets)
            if not self._read():
                self._rewind()
                while self._read() and len(packets) == before:
                    pass
                if len(packets) == before:
                    raise InputError(f"mux.input: {self._path}: no transport packets any more")
        return [packets.popleft() for _ in range(count)]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> bool:
        """Take the next chunk in; False at the end of the file."""
        chunk = self._file.read(_CHUNK_BYTES)
        self._packets.extend(self._seam.process(each) for each in self._sync.feed(chunk))
        return bool(chunk)

    def _rewind(self) -> None:
        self._file.seek(0)
        self._sync = PacketSync()
        self._seam.restart()


def _measure(path: Path) -> float:
    """Return the rate in bits per second that the PCRs tell; raises ConfigError or OSError."""
    meter, sync = RateMeter(), PacketSync()
    packets = 0
    with path.open("rb") as file:
        while file.tell() < _MEASURED_BYTES and (chunk := file.read(_CHUNK_BYTES)):
            found = sync.feed(chunk)
            packets += len(found)
            meter.feed(found)
    if not packets:
        raise ConfigError(f"mux.input: {path}: no transport packets")
    if meter.bits_per_s is None:
        raise ConfigError(f"mux.input: {path}: no PCRs to tell the rate; set mux.bitrate_kbit_s")
    return meter.bits_per_s


class UdpInput(asyncio.DatagramProtocol):
    """Datagrams of transport packets, handed on as they arrive.

    Attributes:
        heard_at: the event loop's time when packets last came, seconds.
    """

    def __init__(self, deliver: Callable[[list[bytes]], None], now: Callable[[], float]) -> None:
        self.heard_at = now()
        self._deliver = deliver
        self._now = now
        self._sync = PacketSync()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002 (any sender)
        """Hand on the packets; what is none is searched over."""
        packets = self._sync.feed(data)
        if packets:
            self.heard_at = self._now()
            self._deliver(packets)


def udp_receiver(host: str, port: int) -> socket.socket:
    """Bind a UDP socket, a multicast group joined; raises ConfigError."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.settimeout(0)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    try:
        address = socket.gethostbyname(host)
        if ip_address(address).is_multicast:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            membership = socket.inet_aton(address) + socket.inet_aton("0.0.0.0")  # noqa: S104 (any interface)  # nosec B104
            receiver.bind((address, port))
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        else:
            receiver.bind((address, port))
    except OSError as error:
        receiver.close()
        raise ConfigError(f"mux.input: udp://{host}:{port}: {error.strerror}") from error
    return receiver
