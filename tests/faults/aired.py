"""What a multiplexer put on air, read from the transport stream it wrote."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dvbwire.psi import CAT_PID, TDT_PID
from dvbwire.ts import PACKET_SIZE, SectionReassembler, pid_of

_NULL_PID = 0x1FFF
_TABLE_ID = 0x82  # docs/emm-format.md


class AiredState(NamedTuple):
    """A section of a box's state. number: epoch and sequence, as boxes compare them."""

    address: int
    part: int
    number: tuple[int, int]
    section: bytes


def states(stream: Path) -> Iterator[AiredState]:
    """Every state section in the order in which it went out."""
    reassemblers: defaultdict[int, SectionReassembler] = defaultdict(SectionReassembler)
    data = stream.read_bytes()
    for start in range(0, len(data) - PACKET_SIZE + 1, PACKET_SIZE):
        packet = data[start : start + PACKET_SIZE]
        pid = pid_of(packet)
        if pid in (_NULL_PID, CAT_PID, TDT_PID):
            continue
        for section in reassemblers[pid].push(packet):
            if section[0] == _TABLE_ID and section[8] & 0x0F == 1:
                yield AiredState(
                    address=int.from_bytes(section[3:8]),
                    part=section[9] >> 4,
                    number=(int.from_bytes(section[10:12]), int.from_bytes(section[12:16])),
                    section=section,
                )


def check_states(stream: Path) -> int:
    """Raise AssertionError where a number had two states, or an older one came after a newer.

    Returns how many sections were looked at.
    """
    said: dict[tuple[int, int, tuple[int, int]], bytes] = {}
    newest: dict[tuple[int, int], tuple[int, int]] = {}
    count = 0
    for one in states(stream):
        count += 1
        key = (one.address, one.part, one.number)
        assert said.setdefault(key, one.section) == one.section, f"two states under {key}"
        assert newest.get(key[:2], one.number) <= one.number, f"older than before: {key}"
        newest[key[:2]] = one.number
    return count
