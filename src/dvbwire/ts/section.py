"""Sections into packets and back (ISO/IEC 13818-1 clauses 2.4.4.1 and 2.4.4.2)."""

from dvbwire.ts.packet import (
    NULL_PID,
    PACKET_SIZE,
    SYNC_BYTE,
    TsError,
    continuity_counter_of,
    discontinuity_of,
    has_payload,
    payload_of,
    payload_unit_start_of,
)

MAX_SECTION_SIZE = 4096  # 2.4.4.11: private_section_length is at most 4093
_SECTION_HEADER_SIZE = 3
_PAYLOAD_SIZE = 184
_STUFFING = 0xFF


def _section_size(data: bytes | bytearray, offset: int = 0) -> int:
    """Return the size in bytes, header included, of the section whose header is at `offset`."""
    return _SECTION_HEADER_SIZE + ((data[offset + 1] & 0x0F) << 8 | data[offset + 2])


def packetize_section(section: bytes, pid: int, continuity_counter: int = 0) -> list[bytes]:
    """Cut one section into packets of its own; one of at most 183 bytes makes one packet.

    Args:
        section: the whole section, its length field agreeing with its size.
        pid: 0 to 0x1FFF.
        continuity_counter: that of the first packet; it counts on modulo 16.

    Raises:
        TsError: the section's length field is wrong, it is longer than 4096 bytes, or the PID is
            out of range.
    """
    if not _SECTION_HEADER_SIZE <= len(section) <= MAX_SECTION_SIZE:
        raise TsError(f"a section of {len(section)} bytes")
    if _section_size(section) != len(section):
        raise TsError(f"section_length says {_section_size(section)} of {len(section)} bytes")
    if not 0 <= pid <= NULL_PID:
        raise TsError(f"PID {pid} out of range")
    payload = b"\x00" + section  # 2.4.4.2: pointer_field, the section starts at once
    packets = []
    for number, offset in enumerate(range(0, len(payload), _PAYLOAD_SIZE)):
        unit_start = 0 if offset else 0x40
        counter = (continuity_counter + number) & 0x0F
        header = bytes((SYNC_BYTE, unit_start | pid >> 8, pid & 0xFF, 0x10 | counter))
        chunk = payload[offset : offset + _PAYLOAD_SIZE]
        packets.append(header + chunk.ljust(_PAYLOAD_SIZE, b"\xff"))
    return packets


class SectionReassembler:
    """Puts the sections of one PID together again.

    Attributes:
        discontinuities: gaps in the continuity counter that no indicator announced.
        malformed: packets or sections dropped because they contradict the standard: transport
            error, scrambled, pointer_field or section_length out of range, a section cut short.
    """

    def __init__(self) -> None:
        self.discontinuities = 0
        self.malformed = 0
        self._partial = bytearray()
        self._counter: int | None = None
        self._payload = b""

    def push(self, packet: bytes) -> list[bytes]:
        """Take the next packet of the PID and return the sections it completes, in order."""
        # 2.4.3.3: with transport_error_indicator set nothing in the packet can be relied upon.
        if len(packet) != PACKET_SIZE or packet[0] != SYNC_BYTE or packet[1] & 0x80:
            self.malformed += 1
            return []
        if not has_payload(packet):  # 2.4.3.3: the counter stands still
            return []
        payload = payload_of(packet)
        if not self._follows(packet, payload):
            return []
        # 2.4.3.3: transport_scrambling_control is 00 for the sections we read.
        if packet[3] & 0xC0 or not payload:
            self._drop_malformed()
            return []
        if payload_unit_start_of(packet):
            return self._start(payload)
        return self._finish(payload) if self._partial else []

    def _follows(self, packet: bytes, payload: bytes) -> bool:
        """Keep the continuity counter; False for a duplicate, which says nothing new."""
        counter = continuity_counter_of(packet)
        last, last_payload = self._counter, self._payload
        self._counter, self._payload = counter, payload
        if last is None or counter == (last + 1) & 0x0F:
            return True
        announced = discontinuity_of(packet)
        # 2.4.3.3: a packet may be sent twice; the counter then stands still.
        if counter == last and payload == last_payload and not announced:
            return False
        self._partial.clear()
        if not announced:
            self.discontinuities += 1
        return True

    def _start(self, payload: bytes) -> list[bytes]:
        start = 1 + payload[0]  # 2.4.4.2: pointer_field
        if start > len(payload):
            self._drop_malformed()
            return []
        sections = self._finish(payload[1:start]) if self._partial else []
        if self._partial:  # the section before was cut short
            self._drop_malformed()
        offset = start
        while offset < len(payload) and payload[offset] != _STUFFING:
            remaining = len(payload) - offset
            if remaining < _SECTION_HEADER_SIZE or remaining < _section_size(payload, offset):
                self._partial += payload[offset:]
                sections += self._finish(b"")
                break
            size = _section_size(payload, offset)
            sections.append(payload[offset : offset + size])
            offset += size
        return sections

    def _finish(self, more: bytes) -> list[bytes]:
        """Add to the section begun; what follows its end in the packet is stuffing."""
        partial = self._partial
        partial += more
        if len(partial) < _SECTION_HEADER_SIZE:
            return []
        size = _section_size(partial)
        if size > MAX_SECTION_SIZE:
            self._drop_malformed()
            return []
        if len(partial) < size:
            return []
        section = bytes(partial[:size])
        partial.clear()
        return [section]

    def _drop_malformed(self) -> None:
        self.malformed += 1
        self._partial.clear()
