"""A head-end, its database and its boxes, and one run of load through all of it."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from portcullis.store.database import engine_for
from tests.cluster import Cluster
from tests.faults.boxes import Boxes
from tests.faults.headend import HeadEnd
from tests.faults.sms import Sms
from tests.faults.verdict import kept, wrong_boxes

SETTLE_S = 90.0
"""When every box is to hold what was ordered, after the last order."""


@dataclass
class System:
    """What a proof works on. Its runs share one ledger: what was promised before still holds."""

    head_end: HeadEnd
    boxes: Boxes
    cluster: Cluster
    runs: Iterator[int] = field(default_factory=itertools.count)

    @property
    def ledger(self) -> Path:
        """The SMS's file of every 2xx."""
        return self.head_end.home / "ledger.jsonl"

    @contextmanager
    def load(self, seed: int, pause_s: float = 0.5) -> Iterator[Sms]:
        """Orders for every box; at the end all of them answered."""
        devices = json.loads((self.head_end.home / "devices.json").read_text(encoding="utf-8"))
        with Sms(
            self.head_end.access,
            self.ledger,
            [device["device_id"] for device in devices],
            seed=seed,
            run=f"run{next(self.runs)}",
            pause_s=pause_s,
        ) as sms:
            yield sms

    def verdict(self, sms: Sms) -> dict[str, int]:
        """Every 2xx once in the tables, every box as ordered; raises AssertionError if not.

        Returns the figures, all zero but the orders.
        """
        self.head_end.keeper.wait_ready()
        assert sms.surprises == []
        wrong = wrong_boxes(self.boxes, self.ledger, SETTLE_S)
        engine = engine_for(self.cluster.url("portcullis_migrate"), pool_size=1)
        found = kept(engine, self.head_end.access.client_id, self.ledger)
        engine.dispose()
        assert found.lost == []
        assert found.doubled == []
        assert wrong == {}
        assert self.head_end.keeper.own_deaths == []
        return {
            "orders": sms.answered,
            "lost": len(found.lost),
            "doubled": len(found.doubled),
            "boxes_wrong": len(wrong),
        }
