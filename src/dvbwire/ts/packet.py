"""One transport packet: what its header says, and the same packet under another PID.

The readers index straight into the packet and check nothing: give them whole packets of 188
bytes, as `PacketSync` hands them out. Header layout: ISO/IEC 13818-1 clause 2.4.3.2.
"""

from dvbwire.errors import DvbWireError

PACKET_SIZE = 188
SYNC_BYTE = 0x47
NULL_PID = 0x1FFF
NULL_PACKET = b"\x47\x1f\xff\x10" + b"\xff" * 184

_HEADER_SIZE = 4
_PCR_FIELD_END = 7  # adaptation_field_length that flags and PCR fill
_MAX_ADAPTATION_WITH_PAYLOAD = 182


class TsError(DvbWireError):
    """A packet or section that cannot be built as asked."""


def pid_of(packet: bytes) -> int:
    """Return the PID, 0 to 0x1FFF."""
    return (packet[1] & 0x1F) << 8 | packet[2]


def continuity_counter_of(packet: bytes) -> int:
    """Return the continuity_counter, 0 to 15."""
    return packet[3] & 0x0F


def payload_unit_start_of(packet: bytes) -> bool:
    """Say whether a section (or PES packet) starts in this packet."""
    return bool(packet[1] & 0x40)


def has_payload(packet: bytes) -> bool:
    """Say whether adaptation_field_control announces a payload."""
    return bool(packet[3] & 0x10)


def payload_of(packet: bytes) -> bytes:
    """Return what follows header and adaptation field; empty if there is none or it is damaged."""
    control = packet[3] & 0x30
    if control == 0x10:  # noqa: PLR2004 (Table 2-5: payload only)
        return packet[_HEADER_SIZE:]
    # 2.4.3.5: with a payload, adaptation_field_length is 0 to 182.
    if control == 0x30 and packet[4] <= _MAX_ADAPTATION_WITH_PAYLOAD:  # noqa: PLR2004 (Table 2-5)
        return packet[_HEADER_SIZE + 1 + packet[4] :]
    return b""


def discontinuity_of(packet: bytes) -> bool:
    """Return the discontinuity_indicator of the adaptation field (clause 2.4.3.5)."""
    return bool(packet[3] & 0x20 and packet[4] and packet[5] & 0x80)


def pcr_of(packet: bytes) -> int | None:
    """Return the programme clock reference in ticks of 27 MHz, None if the packet has none.

    base (33 bits of 90 kHz) times 300 plus extension (clauses 2.4.2.2, 2.4.3.5).
    """
    if not (packet[3] & 0x20 and packet[4] >= _PCR_FIELD_END and packet[5] & 0x10):
        return None
    field = int.from_bytes(packet[6:12])
    return (field >> 15) * 300 + (field & 0x1FF)


def with_pid_and_counter(packet: bytes, pid: int, continuity_counter: int) -> bytes:
    """Return `packet` under `pid` and `continuity_counter`, all else unchanged.

    Args:
        packet: 188 bytes.
        pid: 0 to 0x1FFF.
        continuity_counter: 0 to 15.

    Raises:
        TsError: a value is out of its range.
    """
    if len(packet) != PACKET_SIZE or packet[0] != SYNC_BYTE:
        raise TsError(f"not a transport packet: {len(packet)} bytes")
    if not (0 <= pid <= NULL_PID and 0 <= continuity_counter <= 0x0F):  # noqa: PLR2004 (4 bits)
        raise TsError(f"PID {pid} or continuity_counter {continuity_counter} out of range")
    header = bytes(
        (
            SYNC_BYTE,
            packet[1] & 0xE0 | pid >> 8,
            pid & 0xFF,
            packet[3] & 0xF0 | continuity_counter,
        )
    )
    return header + packet[_HEADER_SIZE:]
