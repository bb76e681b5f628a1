"""Packets out of a byte stream that may begin, break or be damaged anywhere."""

from dvbwire.ts.packet import PACKET_SIZE, SYNC_BYTE

_LOCK_PACKETS = 3
_LOCK_SPAN = (_LOCK_PACKETS - 1) * PACKET_SIZE


class PacketSync:
    """Finds the packets in a byte stream.

    A stream is taken to begin with a packet. Where a sync byte is missing, packets are found again
    at the first place that shows three sync bytes 188 bytes apart.

    Attributes:
        lost_bytes: bytes skipped while searching.
    """

    def __init__(self) -> None:
        self.lost_bytes = 0
        self._pending = b""
        self._locked = True

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes, cut anywhere, and return the whole packets known by now.

        Holds back fewer than 565 bytes from one call to the next.
        """
        buffer = self._pending + data if self._pending else data
        packets: list[bytes] = []
        offset = 0
        while True:
            if not self._locked:
                offset = self._search(buffer, offset)
                if not self._locked:
                    break
            count = (len(buffer) - offset) // PACKET_SIZE
            end = offset + count * PACKET_SIZE
            sync_bytes = buffer[offset:end:PACKET_SIZE]
            if sync_bytes.count(SYNC_BYTE) != count:
                aligned = len(sync_bytes) - len(sync_bytes.lstrip(b"\x47"))
                end = offset + aligned * PACKET_SIZE
                self._locked = False
            packets += [buffer[at : at + PACKET_SIZE] for at in range(offset, end, PACKET_SIZE)]
            offset = end
            if self._locked:
                break
        self._pending = buffer[offset:]
        return packets

    def _search(self, buffer: bytes, offset: int) -> int:
        """Return where packets begin again (locked) or whence to search with more bytes."""
        start = offset
        while True:
            at = buffer.find(SYNC_BYTE, start)
            if at < 0:
                at = len(buffer)
                break
            if at + _LOCK_SPAN >= len(buffer):
                break
            if buffer[at : at + _LOCK_SPAN + 1 : PACKET_SIZE].count(SYNC_BYTE) == _LOCK_PACKETS:
                self._locked = True
                break
            start = at + 1
        self.lost_bytes += at - offset
        return at
