"""MPEG-2 transport packets and the sections they carry (ISO/IEC 13818-1 clauses 2.4.3, 2.4.4).

Does: reads and rewrites packet headers, cuts sections into packets, puts them together again,
    finds packets in a byte stream.
Owns: nothing.
Hears: packets of 188 bytes, or bytes cut anywhere.
Speaks: packets, sections, counts of what was lost; `TsError` for what a caller cannot ask.
Never: raises on what a stream contains; damage is counted and skipped.
"""

from dvbwire.ts.packet import (
    NULL_PACKET,
    NULL_PID,
    PACKET_SIZE,
    SYNC_BYTE,
    TsError,
    continuity_counter_of,
    discontinuity_of,
    has_payload,
    payload_of,
    payload_unit_start_of,
    pcr_of,
    pid_of,
    with_pid_and_counter,
)
from dvbwire.ts.section import MAX_SECTION_SIZE, SectionReassembler, packetize_section
from dvbwire.ts.sync import PacketSync

__all__ = [
    "MAX_SECTION_SIZE",
    "NULL_PACKET",
    "NULL_PID",
    "PACKET_SIZE",
    "SYNC_BYTE",
    "PacketSync",
    "SectionReassembler",
    "TsError",
    "continuity_counter_of",
    "discontinuity_of",
    "has_payload",
    "packetize_section",
    "payload_of",
    "payload_unit_start_of",
    "pcr_of",
    "pid_of",
    "with_pid_and_counter",
]
