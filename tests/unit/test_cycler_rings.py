"""The rings of a carousel, where their numbers come round."""

import numpy as np
import pytest

from portcullis.cycler import queues
from portcullis.cycler.records import WALKING
from portcullis.cycler.rings import Rings


def test_tickets_come_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 2^28 airings a slot is still found in its ring, and leaves it."""
    begin = queues.Queue.__init__

    def long_ago(queue: queues.Queue, dtype: np.dtype[np.void]) -> None:
        begin(queue, dtype)
        queue.head = queue.tail = 2**28 - 2

    monkeypatch.setattr(queues.Queue, "__init__", long_ago)
    rings = Rings(2)
    rings.reserve(4)
    records = np.zeros(4, WALKING)
    records["slot"] = range(4)
    rings.push(1, records, 10.0)
    assert rings.live(1)["slot"].tolist() == [0, 1, 2, 3]
    assert [int(rings.record(slot)["slot"][0]) for slot in range(4)] == [0, 1, 2, 3]
    assert rings.look(1, 4, 10.0, 0.0, np.ones_like) == []
    rings.front(1).at = 3
    rings.pop(1)
    assert rings.live(1)["slot"].tolist() == [3]
    assert rings.ring_of(3) == 1
