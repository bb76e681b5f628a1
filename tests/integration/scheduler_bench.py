"""A database, the scheduler's jobs, and a clock that moves only when told."""

import json
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, delete, select, update

from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.scheduler.config import SchedulerConfig
from portcullis.scheduler.jobs import Jobs
from portcullis.scheduler.leadership import Leadership
from portcullis.store.database import writing
from portcullis.store.rekey import Progress, read_rotations
from portcullis.store.rotation import read_chains
from portcullis.store.schema import (
    device_work,
    devices,
    emms,
    entitlements,
    feed,
    leases,
    products,
)

DAY = timedelta(days=1)


class ChainMaker(EncryptorClient):
    """An encryptor that makes chains out of thin air."""

    def __init__(self) -> None:
        """No channel."""

    def make_chain(self, product_id: int, first_epoch: int, last_epoch: int) -> pb.SealedKey:
        """A chain whose blob nobody will open."""
        return pb.SealedKey(
            purpose=pb.SealedKey.PRODUCT,
            owner=product_id,
            first_epoch=first_epoch,
            last_epoch=last_epoch,
            master_id="m1",
            blob=b"x" * 44,
        )


class Bench:
    """A database, the jobs, and a clock that moves only when told."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = datetime.now(UTC)
        self.leads = True
        self.config = SchedulerConfig(chain_epochs=2)
        self.jobs = self.new_jobs()
        Leadership(engine, "me").renew()

    def new_jobs(self) -> Jobs:
        """A scheduler that was started again."""
        return Jobs(self.engine, ChainMaker(), self.config, lambda: self.leads, lambda: self.now)

    def product(self, product_id: int = 7) -> None:
        """A product with its first chain."""
        with writing(self.engine) as connection:
            connection.execute(
                products.insert().values(product_id=product_id, name="p", created_at=self.now)
            )
        self.jobs.make_chains()

    def boxes(self, *device_ids: int, active: bool = True, held: str = '{"7": 1}') -> None:
        """Boxes entitled to product 7, their states sealed and long on air."""
        with writing(self.engine) as connection:
            connection.execute(
                devices.insert(),
                [
                    {"device_id": one, "active": int(active), "added_at": self.now}
                    for one in device_ids
                ],
            )
            connection.execute(
                entitlements.insert(),
                [
                    {"device_id": one, "product_id": 7, "starts_at": self.now, "ends_at": None}
                    for one in device_ids
                ],
            )
            connection.execute(
                device_work.insert(),
                [
                    {
                        "device_id": one,
                        "wanted": 1,
                        "sealed": 1,
                        "state_wanted": 1,
                        "state_sealed": 1,
                        "cause": "order",
                        "priority": 0,
                        "held": held,
                        "state_sealed_at": self.now,
                    }
                    for one in device_ids
                ],
            )
        for one in device_ids:
            self.emm(one, first_aired_at=self.now - timedelta(days=1))

    def emm(self, device_id: int, message_id: int = 0, **values: object) -> None:
        """An EMM on air."""
        row: dict[str, object] = {
            "device_id": device_id,
            "message_id": message_id,
            "part": 1,
            "parts": 1,
            "kind": 1,
            "epoch": 0,
            "number": 1,
            "cause": "order",
            "covers": 1,
            "revision": 0,
            "section": b"x",
            "sealed_at": self.now,
        }
        with writing(self.engine) as connection:
            connection.execute(emms.insert().values(row | values))

    def work(self, device_id: int) -> dict[str, object]:
        """The row of a device's work."""
        with self.engine.connect() as connection:
            row = connection.execute(
                select(device_work).where(device_work.c.device_id == device_id)
            ).one()
            return dict(row._mapping)

    def on_air(self) -> set[tuple[int, int]]:
        """(device, message) of what is no tombstone."""
        with self.engine.connect() as connection:
            rows = connection.execute(
                select(emms.c.device_id, emms.c.message_id).where(emms.c.tombstone == 0)
            )
            return {(row[0], row[1]) for row in rows}

    def revision(self) -> int:
        """Where the feed stands."""
        with self.engine.connect() as connection:
            return int(connection.execute(select(feed.c.revision)).scalar_one())

    def rotate(self, times: int = 1) -> None:
        """The rotation's job, so often."""
        for _ in range(times):
            self.jobs.rotation.step()

    def air(self, cycles: float, name: str = "stream:0xFFF00001:1", *, reads: bool = True) -> None:
        """What a cycler says with its lease: cycles aired in all, and the feed it has read."""
        note = {"cycles": cycles, "cycle_s": 600, "revision": self.revision() if reads else -1}
        values = {"expires_at": self.now + DAY, "note": json.dumps(note)}
        with writing(self.engine) as connection:
            connection.execute(delete(leases).where(leases.c.name == name))
            connection.execute(leases.insert().values(name=name, holder="c", **values))

    def progress(self, epoch: int = 2) -> Progress:
        """How far the rotation to an epoch is."""
        (found,) = [one for one in read_rotations(self.engine) if one.seal_epoch == epoch]
        return found

    def switch(self) -> None:
        """Take what is prepared, to its end."""
        self.rotate(3)
        self.seal_all()
        self.rotate(1)
        self.air(0)
        self.rotate(1)
        self.air(3)
        self.now += 3 * DAY
        self.air(3)
        self.rotate(1)

    def seal_all(self, *but: int, epoch: int | None = None) -> None:
        """What an EMMG does with marked boxes, as far as the scheduler can tell."""
        newest = epoch or max(chain.seal_epoch for chain in read_chains(self.engine))
        with writing(self.engine) as connection:
            connection.execute(
                update(device_work)
                .where(device_work.c.device_id.not_in(but))
                .values(
                    held=json.dumps({"7": newest}),
                    sealed=device_work.c.wanted,
                    state_sealed=device_work.c.state_wanted,
                    state_sealed_at=self.now,
                    dirty_at=None,
                    due_at=None,
                )
            )
