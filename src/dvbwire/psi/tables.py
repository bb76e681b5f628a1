"""PAT, CAT and PMT, one section each (ISO/IEC 13818-1 clauses 2.4.4.4 to 2.4.4.10)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from dvbwire.psi.descriptors import CaDescriptor, Descriptor, parse_descriptors
from dvbwire.psi.errors import PsiError, PsiReason
from dvbwire.psi.longform import LongSection

PAT_PID = 0x0000
CAT_PID = 0x0001
PAT_TABLE_ID = 0x00
CAT_TABLE_ID = 0x01
PMT_TABLE_ID = 0x02

_MAX_PID = 0x1FFF
_PAT_ENTRY_SIZE = 4
_PMT_FIXED_SIZE = 4
_PMT_ENTRY_SIZE = 5
_LOOP_LENGTH_MASK = 0x0FFF
_RESERVED_16 = 0xFFFF  # 2.4.4.6: the CAT has reserved bits where others have an id


def _pid_bytes(pid: int) -> bytes:
    if not 0 <= pid <= _MAX_PID:
        raise PsiError(PsiReason.VALUE, f"PID {pid}")
    return (0xE000 | pid).to_bytes(2)


def _loop_bytes(descriptors: tuple[Descriptor | CaDescriptor, ...]) -> bytes:
    loop = b"".join(descriptor.to_bytes() for descriptor in descriptors)
    return (0xF000 | len(loop) & _LOOP_LENGTH_MASK).to_bytes(2) + loop


@dataclass(frozen=True, slots=True)
class Pat:
    """Program association section (clause 2.4.4.4).

    Attributes:
        transport_stream_id: 16 bits.
        version: 0 to 31.
        programs: program_number to PMT PID; number 0 leads to the network PID.
        current: current_next_indicator.
        section_number: 0 to 255.
        last_section_number: 0 to 255.
    """

    transport_stream_id: int
    version: int
    programs: Mapping[int, int]
    current: bool = True
    section_number: int = 0
    last_section_number: int = 0

    def to_section(self) -> bytes:
        """Return the section with its CRC_32; raises PsiError (length or value)."""
        if not all(0 <= number <= 0xFFFF for number in self.programs):  # noqa: PLR2004 (16 bits)
            raise PsiError(PsiReason.VALUE, "program_number out of range")
        body = b"".join(
            number.to_bytes(2) + _pid_bytes(pid) for number, pid in self.programs.items()
        )
        return LongSection(
            PAT_TABLE_ID,
            self.transport_stream_id,
            self.version,
            body,
            self.current,
            self.section_number,
            self.last_section_number,
        ).to_section()

    @classmethod
    def from_section(cls, section: bytes) -> Self:
        """Read a section; raises PsiError with the reason."""
        read = LongSection.from_section(section, PAT_TABLE_ID)
        if len(read.body) % _PAT_ENTRY_SIZE:
            raise PsiError(PsiReason.LENGTH, f"program loop of {len(read.body)} bytes")
        entries = range(0, len(read.body), _PAT_ENTRY_SIZE)
        return cls(
            transport_stream_id=read.extension,
            version=read.version,
            programs={
                int.from_bytes(read.body[at : at + 2]): (
                    int.from_bytes(read.body[at + 2 : at + 4]) & _MAX_PID
                )
                for at in entries
            },
            current=read.current,
            section_number=read.section_number,
            last_section_number=read.last_section_number,
        )


@dataclass(frozen=True, slots=True)
class Cat:
    """Conditional access section (clause 2.4.4.6).

    Attributes:
        version: 0 to 31.
        descriptors: a CaDescriptor per EMM stream, and whatever else is there.
        current: current_next_indicator.
        section_number: 0 to 255.
        last_section_number: 0 to 255.
    """

    version: int
    descriptors: tuple[Descriptor | CaDescriptor, ...]
    current: bool = True
    section_number: int = 0
    last_section_number: int = 0

    def to_section(self) -> bytes:
        """Return the section with its CRC_32; raises PsiError (length or value)."""
        return LongSection(
            CAT_TABLE_ID,
            _RESERVED_16,
            self.version,
            b"".join(descriptor.to_bytes() for descriptor in self.descriptors),
            self.current,
            self.section_number,
            self.last_section_number,
        ).to_section()

    @classmethod
    def from_section(cls, section: bytes) -> Self:
        """Read a section; raises PsiError with the reason."""
        read = LongSection.from_section(section, CAT_TABLE_ID)
        return cls(
            version=read.version,
            descriptors=parse_descriptors(read.body),
            current=read.current,
            section_number=read.section_number,
            last_section_number=read.last_section_number,
        )


@dataclass(frozen=True, slots=True)
class ElementaryStream:
    """One component of a programme: stream_type (Table 2-34), PID, descriptors."""

    stream_type: int
    pid: int
    descriptors: tuple[Descriptor | CaDescriptor, ...] = ()


@dataclass(frozen=True, slots=True)
class Pmt:
    """Program map section (clause 2.4.4.9): always the only one of its programme.

    Attributes:
        program_number: 1 to 65535.
        version: 0 to 31.
        pcr_pid: the PID that carries the clock, 0x1FFF for none.
        descriptors: those of the whole programme.
        streams: its components.
        current: current_next_indicator.
    """

    program_number: int
    version: int
    pcr_pid: int
    descriptors: tuple[Descriptor | CaDescriptor, ...] = ()
    streams: tuple[ElementaryStream, ...] = ()
    current: bool = True

    def to_section(self) -> bytes:
        """Return the section with its CRC_32; raises PsiError (length or value)."""
        body = _pid_bytes(self.pcr_pid) + _loop_bytes(self.descriptors)
        for stream in self.streams:
            if not 0 <= stream.stream_type <= 0xFF:  # noqa: PLR2004 (8 bits)
                raise PsiError(PsiReason.VALUE, f"stream_type {stream.stream_type}")
            body += bytes((stream.stream_type,)) + _pid_bytes(stream.pid)
            body += _loop_bytes(stream.descriptors)
        return LongSection(
            PMT_TABLE_ID, self.program_number, self.version, body, self.current
        ).to_section()

    @classmethod
    def from_section(cls, section: bytes) -> Self:
        """Read a section; raises PsiError with the reason."""
        read = LongSection.from_section(section, PMT_TABLE_ID)
        body = read.body
        if len(body) < _PMT_FIXED_SIZE:
            raise PsiError(PsiReason.LENGTH, f"PMT body of {len(body)} bytes")
        program_loop, at = _read_loop(body, 2)
        streams = []
        while at < len(body):
            if at + _PMT_ENTRY_SIZE > len(body):
                raise PsiError(PsiReason.LENGTH, "a component runs over the end of the section")
            stream_type, pid = body[at], int.from_bytes(body[at + 1 : at + 3]) & _MAX_PID
            component_loop, at = _read_loop(body, at + 3)
            streams.append(ElementaryStream(stream_type, pid, component_loop))
        return cls(
            program_number=read.extension,
            version=read.version,
            pcr_pid=int.from_bytes(body[:2]) & _MAX_PID,
            descriptors=program_loop,
            streams=tuple(streams),
            current=read.current,
        )


def _read_loop(body: bytes, at: int) -> tuple[tuple[Descriptor | CaDescriptor, ...], int]:
    """Read the descriptor loop whose length field is at `at`; return it and where it ends."""
    start = at + 2
    end = start + (int.from_bytes(body[at:start]) & _LOOP_LENGTH_MASK)
    if end > len(body):
        raise PsiError(PsiReason.LENGTH, "a descriptor loop runs over the end of the section")
    return parse_descriptors(body[start:end]), end
