"""From transport packets to boxes: CAT, EMM PIDs, address filter, stream time. No I/O."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from dvbwire.psi import CAT_PID, TDT_PID, CaDescriptor, Cat, PsiError, Tdt
from dvbwire.ts import SectionReassembler, pid_of
from stbsim.box import Box
from stbsim.emm import TABLE_ID
from stbsim.errors import Reason
from stbsim.events import Event, TimeHeard

_ADDRESS_END = 8


@dataclass(slots=True)
class _CatVersion:
    """The sections of one version of the CAT, gathered."""

    version: int
    last_section_number: int
    sections: dict[int, Cat] = field(default_factory=dict)


class Receiver:
    """A demultiplexer with many boxes behind it.

    Attributes:
        boxes: by device_id.
        packets: transport packets seen.
        emm_pids: EMM PID to the CA_system_ids of the CA_descriptors that name it.
        emm_source: (EMM PID, CA_system_id) that last moved a box, else the first in the CAT; None
            without a CA_descriptor.
        time: the newest TDT or TOT in seconds, None if none has come.
    """

    def __init__(self, boxes: Iterable[Box]) -> None:
        self.boxes = {box.device_id: box for box in boxes}
        self.packets = 0
        self.emm_pids: dict[int, tuple[int, ...]] = {}
        self.emm_source: tuple[int, int] | None = None
        self.time: int | None = None
        self._ignored: Counter[Reason] = Counter()
        self._newest_state_utc = 0
        self._cat: _CatVersion | None = None
        self._reassemblers = {CAT_PID: SectionReassembler(), TDT_PID: SectionReassembler()}

    @property
    def ignored(self) -> Counter[Reason]:
        """EMM sections that moved no box, by reason."""
        return sum((box.ignored for box in self.boxes.values()), self._ignored)

    @property
    def as_of(self) -> int | None:
        """The stream's time in seconds: the newest of TDT, TOT and states held; None if none."""
        return max(self.time or 0, self._newest_state_utc) or None

    def push(self, packet: bytes) -> list[Event]:
        """Take the next packet of 188 bytes and return what it made happen."""
        self.packets += 1
        pid = pid_of(packet)
        reassembler = self._reassemblers.get(pid)
        if reassembler is None:
            return []
        events: list[Event] = []
        for section in reassembler.push(packet):
            if pid == CAT_PID:
                self._cat_section(section)
            elif pid == TDT_PID:
                events += self._time_section(section)
            else:
                events += self._emm_section(pid, section)
        return events

    def _cat_section(self, section: bytes) -> None:
        try:
            cat = Cat.from_section(section)
        except PsiError:
            return
        if not cat.current:
            return
        held = self._cat
        if held is None or (held.version, held.last_section_number) != (
            cat.version,
            cat.last_section_number,
        ):
            self._cat = held = _CatVersion(cat.version, cat.last_section_number)
        if held.sections.get(cat.section_number) == cat:
            return
        held.sections[cat.section_number] = cat
        if len(held.sections) > held.last_section_number:
            self._tune([held.sections[number] for number in sorted(held.sections)])

    def _tune(self, sections: list[Cat]) -> None:
        """Listen to the EMM PIDs of a complete CAT, and to no others."""
        emm_pids: dict[int, list[int]] = {}
        for cat in sections:
            for descriptor in cat.descriptors:
                if isinstance(descriptor, CaDescriptor):
                    ids = emm_pids.setdefault(descriptor.ca_pid, [])
                    ids.append(descriptor.ca_system_id)
        self.emm_pids = {pid: tuple(dict.fromkeys(ids)) for pid, ids in emm_pids.items()}
        self._reassemblers = {
            pid: self._reassemblers.get(pid) or SectionReassembler()
            for pid in (*self.emm_pids, CAT_PID, TDT_PID)
        }
        if self.emm_source is None or self.emm_source[0] not in self.emm_pids:
            sources = ((pid, ids[0]) for pid, ids in self.emm_pids.items())
            self.emm_source = next(sources, None)

    def _time_section(self, section: bytes) -> list[Event]:
        try:
            self.time = int(Tdt.from_section(section).utc.timestamp())
        except PsiError:
            return []
        events: list[Event] = [TimeHeard(self.time)]
        for box in self.boxes.values():
            events += box.tick(self.time)
        return events

    def _emm_section(self, pid: int, section: bytes) -> list[Event]:
        if section[0] != TABLE_ID:
            self._ignored[Reason.OTHER_TABLE_ID] += 1
            return []
        if len(section) < _ADDRESS_END:
            self._ignored[Reason.MALFORMED] += 1
            return []
        box = self.boxes.get(int.from_bytes(section[3:_ADDRESS_END]))
        if box is None:
            self._ignored[Reason.OTHER_ADDRESS] += 1
            return []
        events: list[Event] = []
        for ca_system_id in self.emm_pids[pid]:
            moved = box.section(section, ca_system_id)
            if moved:
                self.emm_source = (pid, ca_system_id)
                self._newest_state_utc = max(self._newest_state_utc, box.state_utc)
            events += moved
        return events
