"""The receiver: from packets to thousands of boxes."""

import struct
from datetime import UTC, datetime

from stbsim_emm import CA_SYSTEM_ID, DEVICE_ID, DEVICE_KEY, NO_END, NOW, in_force, seal, state

from dvbwire.psi import CAT_PID, TDT_PID, CaDescriptor, Cat, Descriptor, Tdt
from dvbwire.ts import NULL_PACKET, continuity_counter_of, packetize_section, pid_of
from stbsim.box import Box
from stbsim.errors import Reason
from stbsim.events import EntitlementGained, EntitlementLost, Event, TimeHeard
from stbsim.receiver import Receiver

EMM_PID = 0x1F00


class _Stream:
    """Packets with continuity counters, per PID."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._counters: dict[int, int] = {}

    def send(self, pid: int, *sections: bytes) -> list[Event]:
        events = []
        for section in sections:
            for packet in packetize_section(section, pid, self._counters.get(pid, 0)):
                self._counters[pid_of(packet)] = continuity_counter_of(packet) + 1 & 0x0F
                events += self._receiver.push(packet)
        return events

    def cat(self, *descriptors: CaDescriptor | Descriptor, version: int = 0) -> None:
        self.send(CAT_PID, Cat(version, descriptors).to_section())

    def time(self, time: int) -> list[Event]:
        return self.send(TDT_PID, Tdt(datetime.fromtimestamp(time, UTC)).to_section())


def _tuned(*boxes: Box) -> tuple[Receiver, _Stream]:
    receiver = Receiver(boxes or [Box(DEVICE_ID, DEVICE_KEY)])
    stream = _Stream(receiver)
    stream.cat(CaDescriptor(CA_SYSTEM_ID, EMM_PID))
    return receiver, stream


def test_emms_are_found_through_the_cat_and_nowhere_else() -> None:
    """Before the CAT, or on another PID, the same EMM says nothing."""
    receiver = Receiver([Box(DEVICE_ID, DEVICE_KEY)])
    stream = _Stream(receiver)
    emm = state(1, in_force((5, 0, NO_END)))
    assert stream.send(EMM_PID, *emm) == []
    stream.cat(Descriptor(0x77, b"x"), CaDescriptor(CA_SYSTEM_ID, EMM_PID))
    assert stream.send(EMM_PID + 1, *emm) == []
    assert EntitlementGained(DEVICE_ID, 5, None) in stream.send(EMM_PID, *emm)
    assert receiver.emm_source == (EMM_PID, CA_SYSTEM_ID)


def test_the_ca_system_id_of_the_descriptor_makes_the_key() -> None:
    """Two CA systems in one CAT: the box opens the EMMs of its own on either PID."""
    box = Box(DEVICE_ID, DEVICE_KEY)
    receiver = Receiver([box])
    stream = _Stream(receiver)
    stream.cat(CaDescriptor(0x0100, EMM_PID), CaDescriptor(CA_SYSTEM_ID, EMM_PID + 1))
    assert receiver.emm_source == (EMM_PID, 0x0100)
    stream.send(EMM_PID, *state(1))
    assert box.ignored == {Reason.UNWRAP_FAILED: 1}
    stream.send(EMM_PID + 1, *state(2))
    assert box.number == (1, 2)
    assert receiver.emm_source == (EMM_PID + 1, CA_SYSTEM_ID)


def test_a_new_cat_moves_the_receiver_to_the_new_pid() -> None:
    """The old PID is no longer heard."""
    receiver, stream = _tuned()
    stream.cat(CaDescriptor(CA_SYSTEM_ID, EMM_PID + 5), version=1)
    assert stream.send(EMM_PID, *state(1)) == []
    stream.send(EMM_PID + 5, *state(2))
    assert receiver.boxes[DEVICE_ID].number == (1, 2)


def test_a_cat_not_yet_current_is_not_followed() -> None:
    """current_next_indicator 0 announces, it does not apply."""
    receiver, stream = _tuned()
    coming = Cat(1, (CaDescriptor(CA_SYSTEM_ID, EMM_PID + 5),), current=False)
    stream.send(CAT_PID, coming.to_section())
    assert receiver.emm_pids == {EMM_PID: (CA_SYSTEM_ID,)}


def test_a_cat_of_several_sections_counts_when_all_are_there() -> None:
    """Each may name its own EMM PID."""
    receiver = Receiver([])
    stream = _Stream(receiver)
    for number, pid in ((1, 0x101), (0, 0x100)):
        descriptors = (CaDescriptor(CA_SYSTEM_ID, pid),)
        cat = Cat(3, descriptors, section_number=number, last_section_number=1)
        assert receiver.emm_pids == {}
        stream.send(CAT_PID, cat.to_section())
    assert receiver.emm_pids == {0x100: (CA_SYSTEM_ID,), 0x101: (CA_SYSTEM_ID,)}


def test_other_tables_and_addresses_are_filtered_and_counted() -> None:
    """As a hardware section filter does."""
    receiver, stream = _tuned()
    emm = state(1)[0]
    stream.send(EMM_PID, b"\x84" + emm[1:], b"\x82\x70\x01\x00", *seal(1, 1, [b""], device_id=7))
    assert receiver.ignored == {
        Reason.OTHER_TABLE_ID: 1,
        Reason.MALFORMED: 1,
        Reason.OTHER_ADDRESS: 1,
    }


def test_the_tdt_moves_the_clock_of_every_box() -> None:
    """No time but the stream's."""
    receiver, stream = _tuned()
    assert receiver.as_of is None
    stream.send(EMM_PID, *state(1, in_force((5, 0, NOW + 10))))
    assert receiver.as_of == NOW
    assert stream.time(NOW + 10) == [TimeHeard(NOW + 10), EntitlementLost(DEVICE_ID, 5)]
    assert receiver.as_of == NOW + 10


def test_thousands_of_boxes_live_in_one_receiver() -> None:
    """Each gets its own EMM and nobody else's."""
    keys = {device_id: device_id.to_bytes(16) for device_id in range(1, 5001)}
    receiver, stream = _tuned(*(Box(device_id, key) for device_id, key in keys.items()))
    for device_id, key in keys.items():
        payload = struct.pack(">BI", 1, NOW) + in_force((device_id, 0, NO_END))
        stream.send(EMM_PID, *seal(1, 1, [payload], device_id=device_id, device_key=key))
        assert receiver.push(NULL_PACKET) == []
    held = {
        device_id: [each.product_id for each in box.entitlements]
        for device_id, box in receiver.boxes.items()
    }
    assert held == {device_id: [device_id] for device_id in keys}
    assert receiver.ignored == {}
