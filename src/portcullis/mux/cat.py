"""The CAT of the output: the input's, and where our EMMs are (ISO/IEC 13818-1 clause 2.4.4.6)."""

from collections.abc import Iterable, Iterator

from dvbwire.psi import CAT_PID, CaDescriptor, Cat, Descriptor, PsiError
from dvbwire.ts import SectionReassembler, packetize_section

_MAX_LOOP_BYTES = 1024 - 8 - 4  # 2.4.4.7: a section of 1024 bytes, less its header and CRC_32
_VERSIONS = 32


class CatMerger:
    """Keeps the input's descriptors, adds ours, and counts the version on when either changes.

    An input descriptor that names one of our CA_system_ids or PIDs gives way to ours. A receiver
    that stays on while this program starts again must not take the new CAT for the old one: give
    each start another `first_version`, 0 to 31.
    """

    def __init__(self, first_version: int = 0) -> None:
        self._reassembler = SectionReassembler()
        self._input_version: int | None = None
        self._input: dict[int, tuple[Descriptor | CaDescriptor, ...]] = {}
        self._own: tuple[CaDescriptor, ...] = ()
        self._version = (first_version - 1) % _VERSIONS
        self._counter = 0
        self._sections: list[bytes] = []

    @property
    def own_pids(self) -> frozenset[int]:
        """The PIDs our descriptors name."""
        return frozenset(descriptor.ca_pid for descriptor in self._own)

    def announce(self, own: Iterable[CaDescriptor]) -> None:
        """Say where our EMMs are from now on."""
        own = tuple(own)
        if own != self._own:
            self._own = own
            self._compose()

    def hear(self, packet: bytes) -> None:
        """Take the next packet of PID 1 of the input; what cannot be read is passed over."""
        for section in self._reassembler.push(packet):
            try:
                cat = Cat.from_section(section)
            except PsiError:
                continue
            if not cat.current:
                continue
            if cat.version != self._input_version:
                self._input_version = cat.version
                self._input = {}
            if self._input.get(cat.section_number) != cat.descriptors:
                self._input[cat.section_number] = cat.descriptors
                self._compose()

    def packets(self) -> list[bytes]:
        """Return the packets of one transmission; none if there is nothing to say."""
        packets: list[bytes] = []
        for section in self._sections:
            cut = packetize_section(section, CAT_PID, self._counter)
            self._counter = (self._counter + len(cut)) % 16
            packets += cut
        return packets

    def _compose(self) -> None:
        loops = list(_split(self._descriptors()))
        if not self._sections and not any(loops):
            return
        self._version = (self._version + 1) % _VERSIONS  # 2.4.4.5: a change is a new version
        self._sections = [
            Cat(
                self._version,
                tuple(loop),
                section_number=number,
                last_section_number=len(loops) - 1,
            ).to_section()
            for number, loop in enumerate(loops)
        ]

    def _descriptors(self) -> Iterator[Descriptor | CaDescriptor]:
        own_ids = {descriptor.ca_system_id for descriptor in self._own}
        for number in sorted(self._input):
            for descriptor in self._input[number]:
                if isinstance(descriptor, CaDescriptor) and (
                    descriptor.ca_system_id in own_ids or descriptor.ca_pid in self.own_pids
                ):
                    continue
                yield descriptor
        yield from self._own


def _split(
    descriptors: Iterable[Descriptor | CaDescriptor],
) -> Iterator[list[Descriptor | CaDescriptor]]:
    """Part descriptors into loops that each fit one section; at least one loop."""
    loop: list[Descriptor | CaDescriptor] = []
    room = _MAX_LOOP_BYTES
    for descriptor in descriptors:
        size = len(descriptor.to_bytes())
        if size > room:
            yield loop
            loop, room = [], _MAX_LOOP_BYTES
        loop.append(descriptor)
        room -= size
    yield loop
