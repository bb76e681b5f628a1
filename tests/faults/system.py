"""A head-end, its database and its boxes, and one run of load through all of it."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from portcullis.store.database import engine_for
from tests.cluster import Cluster
from tests.faults.boxes import Boxes
from tests.faults.headend import HeadEnd
from tests.faults.probe import Probe, probe
from tests.faults.scale import IS_FULL
from tests.faults.sms import Sms
from tests.faults.sms_apart import Apart
from tests.faults.verdict import kept, wrong_boxes

DEVICES = [str(number) for number in range(1001, 1201 if IS_FULL else 1061)]
PROBE = "1999"
"""The boxes of the load, and one apart from it."""

SETTLE_S = 90.0
"""When every box is to hold what was ordered, after the last order."""


@dataclass
class System:
    """What a proof works on. Its runs share one ledger: what was promised before still holds."""

    head_end: HeadEnd
    boxes: Boxes
    cluster: Cluster
    numbers: Iterator[int] = field(default_factory=itertools.count)
    _token: str = ""

    @property
    def ledger(self) -> Path:
        """The SMS's file of every 2xx."""
        return self.head_end.home / "ledger.jsonl"

    @contextmanager
    def load(
        self, seed: int, pause_s: float = 0.5, devices: Sequence[str] = DEVICES
    ) -> Iterator[Sms]:
        """Orders for boxes, one each `pause_s`; at the end all of them answered."""
        with Sms(
            self.head_end.access,
            self.ledger,
            devices,
            seed=seed,
            run=f"run{next(self.numbers)}",
            pause_s=pause_s,
        ) as sms:
            self._token = sms.token
            yield sms

    @contextmanager
    def probe(self) -> Iterator[Probe]:
        """The box by which to tell that everything works."""
        with probe(self.head_end.access, self.boxes, self.ledger, PROBE, self.numbers) as one:
            yield one

    def refuses(self) -> None:
        """Give an order now: it is told `unavailable`, and how long to wait.

        By the gateway (503), or by HAProxy where no gateway answers in time (504).
        """
        access = self.head_end.access
        with httpx.Client(verify=access.tls(), base_url=access.url, timeout=30) as http:
            http.headers["Authorization"] = f"Bearer {self._token}"
            answer = http.post("/adddevice", json={"transaction_id": "away", "device_id": "7"})
        assert answer.status_code in (503, 504)
        assert answer.json()["code"] == "unavailable"
        assert int(answer.headers["Retry-After"]) > 0

    def verdict(self, sms: Sms | Apart) -> dict[str, int]:
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
        assert not wrong, wrong
        assert self.head_end.keeper.own_deaths == []
        return {
            "orders": sms.answered,
            "lost": len(found.lost),
            "doubled": len(found.doubled),
            "boxes_wrong": len(wrong),
        }
