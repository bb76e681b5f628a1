"""What content of a product is scrambled under, as the scrambler would be told."""

from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine, select

from portcullis.emm import chain_key
from portcullis.keys import Custody, FileMasters, KeyLabel, Purpose
from portcullis.store.schema import keys


@dataclass(frozen=True)
class Live:
    """The epoch that content is scrambled under, and its key. `chain`: its first epoch."""

    epoch: int
    chain: int
    key: bytes = field(repr=False)


class Scrambler:
    """Reads a product's live epoch in the database and opens its key with the master's file."""

    def __init__(self, engine: Engine, master_key_file: Path, product_id: int) -> None:
        self._engine, self.master_key_file = engine, master_key_file
        self._product_id = product_id

    def live(self) -> Live | None:
        """What content is scrambled under now."""
        with self._engine.connect() as connection:
            row = (
                connection.execute(
                    select(keys)
                    .where(keys.c.purpose == "product", keys.c.owner == self._product_id)
                    .where(keys.c.retired_at.is_(None), keys.c.live_epoch.is_not(None))
                )
                .mappings()
                .one_or_none()
            )
        if row is None:
            return None
        custody = Custody(FileMasters(self.master_key_file))
        label = KeyLabel(
            Purpose.PRODUCT,
            self._product_id,
            row["first_epoch"],
            row["last_epoch"],
            row["master_id"],
        )
        top = custody.open(label, row["sealed_key"])
        key = chain_key(top, self._product_id, row["last_epoch"], row["live_epoch"])
        return Live(row["live_epoch"], row["first_epoch"], key)
