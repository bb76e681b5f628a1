"""New chains of product keys: what the jobs and `portcullis keys rotate` have in common."""

from datetime import datetime

from sqlalchemy import Engine

from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.store import rotation
from portcullis.store.database import database_now


def begin_chain(
    engine: Engine,
    client: EncryptorClient,
    newest: rotation.Chain,
    *,
    epochs: int,
    switch_at: datetime,
) -> None:
    """Make the chain after `newest` and have boxes given it beside the old one."""
    first = newest.last_epoch + 1
    sealed = client.make_chain(newest.product_id, first, first + epochs - 1)
    rotation.insert_next_chain(engine, sealed, switch_at)


def rotate_now(engine: Engine, client: EncryptorClient, product_id: int, epochs: int) -> datetime:
    """Start a new chain after a compromise: it goes live once every box has been given it.

    Both keys are on air until then. A chain that waits already is left to go live. Returns since
    when it waits. Raises LookupError for a product without a chain.
    """
    chains = [one for one in rotation.read_chains(engine) if one.product_id == product_id]
    if not chains:
        raise LookupError(f"product {product_id} has no key chain")
    newest = chains[-1]
    if newest.live_epoch is None and newest.switch_at is not None:
        return newest.switch_at
    with engine.connect() as connection:
        switch_at = database_now(connection)
    begin_chain(engine, client, newest, epochs=epochs, switch_at=switch_at)
    return switch_at
