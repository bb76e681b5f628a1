"""Where the bytes of a transport stream come from: `udp://host:port`, `file:PATH`, `-`."""

import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from stbsim.errors import InputError

_CHUNK_BYTES = 188 * 512
_RECEIVE_BUFFER_BYTES = 16 << 20  # half a second at the highest rates; the kernel may give less
_MAX_DATAGRAM_BYTES = 65_535


class FileSource:
    """A file or pipe, read to its end."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        with closing(self._stream):
            while chunk := self._stream.read(_CHUNK_BYTES):
                yield chunk


class UdpSource:
    """Datagrams to a port, a multicast group joined; never ends."""

    def __init__(self, receiver: socket.socket) -> None:
        host, port = receiver.getsockname()
        self.name = f"udp://{host}:{port}"
        self._socket = receiver

    def __iter__(self) -> Iterator[bytes]:
        with closing(self._socket):
            while True:
                yield self._socket.recv(_MAX_DATAGRAM_BYTES)


Source = FileSource | UdpSource


def open_source(url: str) -> Source:
    """Open what `url` names.

    Raises:
        InputError: no such kind of URL, no such file, or the address cannot be bound.
    """
    try:
        if url == "-":
            return FileSource(sys.stdin.buffer, "standard input")
        if url.startswith("file:"):
            path = Path(url.removeprefix("file:").removeprefix("//"))
            return FileSource(path.open("rb"), url)
        parts = urlsplit(url)
        if parts.scheme == "udp" and parts.hostname and parts.port is not None:
            return UdpSource(_receiver(parts.hostname, parts.port))
    except (OSError, ValueError) as error:
        raise InputError(f"{url}: {error}") from error
    raise InputError(f"{url}: want udp://host:port, file:PATH or -")


def _receiver(host: str, port: int) -> socket.socket:
    address = socket.gethostbyname(host)
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        if ip_address(address).is_multicast:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            receiver.bind((address, port))
            membership = struct.pack("=4sI", socket.inet_aton(address), socket.INADDR_ANY)
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        else:
            receiver.bind((address, port))
    except OSError:
        receiver.close()
        raise
    return receiver
