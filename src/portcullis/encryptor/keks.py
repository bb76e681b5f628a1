"""KEKs of boxes: derived from their device keys, and kept for a while."""

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from portcullis.emm import expand_kek, kek_expansion
from portcullis.keys import Custody, KeyLabel

CACHED_KEKS = 100_000
"""About 45 MB; the boxes that had orders of late."""


class DeviceKeys(NamedTuple):
    """Many sealed device keys, a place each: their labels laid out, and whose KEK is wanted."""

    master_ids: Sequence[str]
    labels: Sequence[bytes]
    blobs: Sequence[bytes]
    expansions: Sequence[bytes]


class Keks:
    """Opens device keys and derives KEKs, for one thread. CustodyAwayError passes through.

    Attributes:
        hits, misses: how many were found among the `size` that were used last, and how many not.
    """

    def __init__(self, custody: Custody, size: int = CACHED_KEKS) -> None:
        self.hits = self.misses = 0
        self._custody = custody
        self._size = size
        self._kept = OrderedDict[bytes, bytes]()  # by all that they are made of; the latest last

    def forget(self) -> None:
        """Drop them all."""
        self._kept.clear()

    def of(self, label: KeyLabel, blob: bytes, ca_system_id: int, epoch: int) -> bytes:
        """One box's KEK.

        Raises KeyNotOpenedError, and OverflowError for an owner or an epoch that no EMM can name.
        """
        expansion = kek_expansion(ca_system_id, label.owner, epoch)
        kek = None
        with suppress(OverflowError, ValueError):  # a label that cannot be laid out opens nothing
            key = DeviceKeys([label.master_id], [label.to_bytes()], [blob], [expansion])
            (kek,) = self.of_each(key)
        # Where there is none, the custody says why.
        return kek or expand_kek(self._custody.open(label, blob), expansion)

    def of_each(self, keys: DeviceKeys) -> list[bytes | None]:
        """The KEK of each; None where the device key does not open."""
        names = [blob + label + expansion for _, label, blob, expansion in zip(*keys, strict=True)]
        kept = self._kept
        keks = list(map(kept.get, names))
        missing = [place for place, kek in enumerate(keks) if kek is None]
        self.misses += len(missing)
        self.hits += len(keks) - len(missing)
        for name, kek in zip(names, keks, strict=True):
            if kek is not None:
                kept.move_to_end(name)
        opened = self._custody.open_each(
            [keys.master_ids[place] for place in missing],
            [keys.labels[place] for place in missing],
            [keys.blobs[place] for place in missing],
        )
        for place, key in zip(missing, opened, strict=True):
            if key is not None:
                keks[place] = kept[names[place]] = expand_kek(key, keys.expansions[place])
        while len(kept) > self._size:
            kept.popitem(last=False)
        return keks
