"""A multiplexer that notes when each data_provision comes: `python -m bench.timing_mux PORT OUT`.

TCP and UDP on the same port, or with `no-udp` behind these TCP alone, another taking the
datagrams; allocates what is asked for. On SIGTERM it writes OUT (npz): by
client_id an array of (seconds, packets). Over TCP the time is when `recv` returned, over UDP the
kernel's.
"""

import signal
import socket
import struct
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from dvbwire.simulcrypt import (
    BandwidthRequested,
    ChannelSetup,
    MessageReader,
    MessageType,
    MuxConnection,
    StreamCloseRequested,
    StreamSetup,
)
from dvbwire.simulcrypt.message import HEADER
from dvbwire.ts import PACKET_SIZE

_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_CLIENT_ID_AT = 9  # in a data_provision: behind message header and parameter header
Noted = dict[int, list[tuple[float, int]]]


def _packets(message: bytes) -> int:
    """Packets in a provision; what is before them is less than one."""
    return len(message) // PACKET_SIZE


def _client_id(message: bytes) -> int:
    return int.from_bytes(message[_CLIENT_ID_AT : _CLIENT_ID_AT + 4], "big")


def _hear_tcp(connection: socket.socket, noted: Noted) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    mux, reader = MuxConnection(), MessageReader()
    while data := connection.recv(1 << 18):
        now = time.time()
        for message in reader.feed(data):
            if HEADER.unpack_from(message)[1] == MessageType.DATA_PROVISION:
                noted[_client_id(message)].append((now, _packets(message)))
                continue
            for event in mux.receive(message, now):
                match event:
                    case ChannelSetup():
                        mux.accept_channel(event.section_tspkt_flag)
                    case StreamSetup():
                        mux.accept_stream(event.stream_id)
                    case BandwidthRequested():
                        mux.allocate(event.stream_id, event.kbit_s)
                    case StreamCloseRequested():
                        mux.confirm_stream_close(event.stream_id)
                    case _:
                        pass
            connection.sendall(mux.data_to_send())


def _hear_udp(udp: socket.socket, noted: Noted) -> None:
    udp.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
    while True:
        message, ancillary, _, _ = udp.recvmsg(2048, 64)
        seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2][: _TIMESPEC.size])
        noted[_client_id(message)].append((seconds + nanoseconds / 1e9, _packets(message)))


def _accept(listener: socket.socket, noted: Noted) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_hear_tcp, args=(connection, noted), daemon=True).start()


def main(port: int, out: Path, *, hears_udp: bool) -> None:
    """Listen until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    noted: Noted = defaultdict(list)
    listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=_accept, args=(listener, noted), daemon=True).start()
    if hears_udp:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", port))
        threading.Thread(target=_hear_udp, args=(udp, noted), daemon=True).start()
    signal.sigwait({signal.SIGTERM})
    np.savez(out, **{str(client): np.array(list(rows)) for client, rows in noted.items()})


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), hears_udp="no-udp" not in sys.argv[3:])
