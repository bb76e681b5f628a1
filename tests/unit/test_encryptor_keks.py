"""KEKs that are kept: whose, how many, and what is not."""

import numpy as np
import pytest

from portcullis.emm import derive_kek, kek_expansions
from portcullis.encryptor.keks import DeviceKeys, Keks
from portcullis.keys import Custody, KeyLabel, KeyNotOpenedError, KeyRing, MasterKey, Purpose

CAS = 0xFFF0
CUSTODY = Custody(KeyRing([MasterKey("m1", b"\1" * 32)]))


def key_of(device: int) -> bytes:
    """The device key of a box."""
    return device.to_bytes(32, "big")


SEALED = {
    device: CUSTODY.seal(key_of(device), Purpose.DEVICE, device, 0, 65535) for device in range(1, 6)
}


def device_keys(*devices: int, epoch: int = 0) -> DeviceKeys:
    """Their sealed keys, as a call names them."""
    sealed = [SEALED[device] for device in devices]
    return DeviceKeys(
        [label.master_id for label, _ in sealed],
        [label.to_bytes() for label, _ in sealed],
        [blob for _, blob in sealed],
        kek_expansions(CAS, np.array(devices, np.uint64), np.full(len(devices), epoch, np.uint32)),
    )


def test_those_used_last_are_kept_and_the_others_opened_anew() -> None:
    """As many as there is room for; one that is used again stays."""
    keks = Keks(CUSTODY, size=3)
    for devices, counts in [
        ((1, 2, 3), (0, 3)),
        ((1,), (1, 3)),
        ((4,), (1, 4)),  # in the place of 2
        ((1, 3, 4), (4, 4)),
        ((2,), (4, 5)),
        ((1, 2, 3, 4, 5), (7, 7)),  # 1 has made room for 2
    ]:
        assert keks.of_each(device_keys(*devices)) == [
            derive_kek(key_of(device), CAS, device, 0) for device in devices
        ]
        assert (keks.hits, keks.misses) == counts


def test_one_box_is_looked_up_as_many_are() -> None:
    """The same KEK from the same store, by epoch and system."""
    keks = Keks(CUSTODY)
    label, blob = SEALED[1]
    assert [keks.of(label, blob, CAS, 7)] == keks.of_each(device_keys(1, epoch=7))
    assert keks.of(label, blob, CAS, 8) == derive_kek(key_of(1), CAS, 1, 8)
    assert keks.of(label, blob, CAS - 1, 7) == derive_kek(key_of(1), CAS - 1, 1, 7)
    assert (keks.hits, keks.misses) == (1, 3)


def test_a_key_that_does_not_open_has_no_kek_and_is_not_kept() -> None:
    """Neither among others nor alone, as often as it is asked for."""
    keks = Keks(CUSTODY)
    (label, _), (_, blob) = SEALED[1], SEALED[2]
    good = device_keys(1, 2, 3)
    moved = good._replace(blobs=[good.blobs[0], good.blobs[0][:20], good.blobs[1]])
    for _ in range(2):
        assert keks.of_each(moved) == [derive_kek(key_of(1), CAS, 1, 0), None, None]
        with pytest.raises(KeyNotOpenedError, match="device key of 1 under master 'm1'"):
            keks.of(label, blob, CAS, 0)


@pytest.mark.parametrize(
    "change", [{"master_id": "a name far too long for one"}, {"last_epoch": 2**16}]
)
def test_a_label_that_cannot_be_laid_out_opens_nothing(change: dict[str, object]) -> None:
    """The custody refuses it."""
    label, blob = SEALED[1]
    changed: KeyLabel = label._replace(**change)  # type: ignore[arg-type]
    with pytest.raises(KeyNotOpenedError):
        Keks(CUSTODY).of(changed, blob, CAS, 0)
