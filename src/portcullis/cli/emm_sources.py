"""Where `portcullis emm decode` gets sections and keys from."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dvbwire.psi import CAT_PID, CaDescriptor, Cat, PsiError
from dvbwire.ts import PacketSync, SectionReassembler, pid_of
from portcullis.emm import EmmHeader, EmmIntegrityError, derive_kek, open_set
from portcullis.runtime.errors import PortcullisError

_KEY_BYTES = range(16, 33)
_MAX_ADDRESS = 2**40 - 1
_SECTION_HEAD_BYTES = 3


@dataclass(frozen=True, slots=True)
class Found:
    """A section, or what is wrong with the bytes at this place.

    Attributes:
        place: where it is: byte of a file; or packet (the one that ends it, from 0) and PID.
        section: empty where only `fault` has something to say.
        ca_system_ids: those whose EMMs it may be.
    """

    place: Mapping[str, int]
    section: bytes = b""
    ca_system_ids: tuple[int, ...] = ()
    fault: str = ""


def in_file(data: bytes, ca_system_id: int) -> Iterator[Found]:
    """Sections one behind the other; the last may be cut short."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at + 1 : at + _SECTION_HEAD_BYTES]) & 0x0FFF
        section = data[at : at + _SECTION_HEAD_BYTES + length]
        yield Found({"byte": at}, section, (ca_system_id,))
        at += len(section)


def in_stream(
    data: Iterable[bytes], only_pid: int | None, only_id: int | None, default_id: int
) -> Iterator[Found]:
    """The sections on `only_pid`, or on the EMM PIDs that a CAT names, and what is broken there.

    Args:
        data: a transport stream, cut anywhere.
        only_pid, only_id: what to go by instead of the CAT.
        default_id: the CA_system_id until a CAT names the PID.
    """
    sync, cat = PacketSync(), SectionReassembler()
    pids: dict[int, _Pid] = {}
    if only_pid is not None:
        pids[only_pid] = _Pid(only_pid, (default_id,))
    packets = (packet for piece in data for packet in sync.feed(piece))
    for number, packet in enumerate(packets):
        pid = pid_of(packet)
        if pid == CAT_PID:
            for one in _ca_descriptors(cat.push(packet)):
                if only_pid in (None, one.ca_pid):
                    known = pids.setdefault(one.ca_pid, _Pid(one.ca_pid))
                    known.name(one.ca_system_id if only_id is None else only_id)
        elif pid in pids:
            yield from pids[pid].push(number, packet)
    if sync.lost_bytes:
        yield Found({}, fault=f"{sync.lost_bytes} bytes between packets are none")


def _ca_descriptors(sections: Iterable[bytes]) -> Iterator[CaDescriptor]:
    for section in sections:
        try:
            descriptors = Cat.from_section(section).descriptors
        except PsiError:
            continue  # it is repeated; one that is whole will come
        yield from (one for one in descriptors if isinstance(one, CaDescriptor))


class _Pid:
    """One EMM PID of a stream."""

    def __init__(self, pid: int, default_ids: tuple[int, ...] = ()) -> None:
        self._pid = pid
        self._default_ids = default_ids
        self._ids: dict[int, None] = {}
        self._reassembler = SectionReassembler()

    def name(self, ca_system_id: int) -> None:
        """A CAT says whose EMMs these are."""
        self._ids[ca_system_id] = None

    def push(self, number: int, packet: bytes) -> Iterator[Found]:
        """What a packet ends, and what broke before."""
        reassembler, place = self._reassembler, {"packet": number, "pid": self._pid}
        gaps, malformed = reassembler.discontinuities, reassembler.malformed
        sections = reassembler.push(packet)
        if reassembler.discontinuities > gaps:
            yield Found(place, fault="packets are missing before it (continuity_counter)")
        if reassembler.malformed > malformed:
            yield Found(place, fault="a section is cut short, or the packet is damaged")
        for section in sections:
            yield Found(place, section, tuple(self._ids) or self._default_ids)


class Boxes:
    """The keys of boxes, and of each the parts of the last state that is not whole yet."""

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        self._keys = keys
        self._parts: dict[int, tuple[EmmHeader, dict[int, bytes]]] = {}

    def has_key(self, device_id: int) -> bool:
        """Say whether EMMs to this device can be opened."""
        return device_id in self._keys

    def open(self, header: EmmHeader, section: bytes, ca_system_ids: Iterable[int]) -> bytes | None:
        """The payload of the set that this section makes whole; None while parts are missing.

        Raises EmmIntegrityError if the set does not open.
        """
        whose = replace(header, part=1)
        known, parts = self._parts.get(header.address, (whose, {}))
        if known != whose:
            parts = {}
        parts[header.part] = section
        if len(parts) < header.parts:
            self._parts[header.address] = (whose, parts)
            return None
        if header.parts > 1:
            del self._parts[header.address]
        sections = [parts[part] for part in sorted(parts)]
        for ca_system_id in ca_system_ids:
            kek = derive_kek(self._keys[header.address], ca_system_id, header.address, header.epoch)
            try:
                return open_set(kek, sections)
            except EmmIntegrityError:
                continue  # another system's EMM on the same PID
        tried = ", ".join(f"0x{one:04X}" for one in ca_system_ids)
        raise EmmIntegrityError(
            f"does not open with the key of device {header.address} for CA_system_id {tried}"
        )


def read_boxes(path: Path) -> Boxes:
    """Read `[{"device_id": "1001", "device_key": "hex"}]`.

    Raises PortcullisError, which names the entry, never a key.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PortcullisError(f"{path}: {error.strerror}") from error
    except ValueError:
        raise PortcullisError(f"{path}: not JSON") from None
    if not isinstance(entries, list):
        raise PortcullisError(f"{path}: want a list of devices")
    keys: dict[int, bytes] = {}
    for place, entry in enumerate(entries, start=1):
        try:
            device_id, key = int(entry["device_id"]), bytes.fromhex(entry["device_key"])
        except (KeyError, TypeError, ValueError):
            device_id, key = 0, b""
        if not 1 <= device_id <= _MAX_ADDRESS or len(key) not in _KEY_BYTES:
            raise PortcullisError(
                f"{path}: entry {place}: want device_id 1 to {_MAX_ADDRESS} in decimal "
                "and device_key of 16 to 32 bytes in hex"
            )
        keys[device_id] = key
    return Boxes(keys)
