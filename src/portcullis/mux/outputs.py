"""Where the output stream goes: UDP and files."""

import socket
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from portcullis.runtime.config import ConfigError
from portcullis.runtime.errors import PortcullisError

_PACKETS_PER_DATAGRAM = 7  # 1316 bytes: what fits an Ethernet frame


class OutputError(PortcullisError):
    """A file can take no more of the stream."""


class Output(Protocol):
    """One destination.

    Attributes:
        url: as configured.
        lost: packets that could not be sent.
    """

    url: str
    lost: int

    def write(self, packets: list[bytes]) -> None:
        """Send packets on."""
        ...

    def close(self) -> None:
        """Send what is held back, and end."""
        ...


class UdpOutput:
    """Seven packets to a datagram."""

    def __init__(self, url: str, host: str, port: int) -> None:
        self.url = url
        self.lost = 0
        self._address = (socket.gethostbyname(host), port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(0)
        self._packets: list[bytes] = []

    def write(self, packets: list[bytes]) -> None:
        """Send whole datagrams; hold back the rest."""
        self._packets += packets
        whole = len(self._packets) - len(self._packets) % _PACKETS_PER_DATAGRAM
        for at in range(0, whole, _PACKETS_PER_DATAGRAM):
            self._send(self._packets[at : at + _PACKETS_PER_DATAGRAM])
        del self._packets[:whole]

    def close(self) -> None:
        """Send what is held back as a shorter datagram."""
        if self._packets:
            self._send(self._packets)
        self._socket.close()

    def _send(self, packets: list[bytes]) -> None:
        try:
            self._socket.sendto(b"".join(packets), self._address)
        except OSError:  # buffer full or no route: the stream goes on without this datagram
            self.lost += len(packets)


class FileOutput:
    """A file that always ends with a whole packet once it is closed."""

    def __init__(self, url: str, path: Path) -> None:
        self.url = url
        self.lost = 0
        self._file = path.open("wb")

    def write(self, packets: list[bytes]) -> None:
        """Append the packets; raises OutputError, on a full disk for one."""
        try:
            self._file.write(b"".join(packets))
            self._file.flush()
        except OSError as error:
            raise OutputError(f"mux.outputs: {self.url}: {error.strerror}") from error

    def close(self) -> None:
        """End the file."""
        self._file.close()


def open_output(url: str) -> Output:
    """Open what `url` names; raises ConfigError."""
    try:
        if url.startswith("file:"):
            return FileOutput(url, Path(url.removeprefix("file:").removeprefix("//")))
        parts = urlsplit(url)
        if parts.scheme == "udp" and parts.hostname and parts.port:
            return UdpOutput(url, parts.hostname, parts.port)
    except (OSError, ValueError) as error:
        raise ConfigError(f"mux.outputs: {url}: {error}") from error
    raise ConfigError(f"mux.outputs: {url}: expected udp://host:port or file:PATH")
