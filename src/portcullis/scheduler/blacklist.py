"""Shutting a device out for good: its rights, its return, and the keys that it holds."""

import hashlib
from uuid import uuid4

from sqlalchemy import Engine

from portcullis.runtime.errors import PortcullisError
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.scheduler.chains import rotate_now
from portcullis.store import rotation
from portcullis.store.blacklist import held_epochs, is_active, set_blacklisted
from portcullis.store.orders import NewRequest, Refused, apply_requests

CLIENT = "portcullis devices blacklist"


class BlacklistError(PortcullisError):
    """The device's rights could not be removed."""


def blacklist(engine: Engine, client: EncryptorClient, device_id: int, epochs: int) -> list[int]:
    """Remove a device for good and start new chains of what it can open; returns the products.

    Its removal is an order like any other: it has a request and is told to the box. Interrupted,
    do it again: what is done is not done twice. Raises BlacklistError, EncryptorError.
    """
    set_blacklisted(engine, device_id, is_blacklisted=True)
    if is_active(engine, device_id):
        body = {"device_id": str(device_id)}
        transaction_id = uuid4().hex
        request = NewRequest(
            client_id=CLIENT,
            transaction_id=transaction_id,
            kind="removedevice",
            body=body,
            body_hash=hashlib.sha256(f"removedevice {device_id}".encode()).digest(),
            device_id=device_id,
        )
        (result,) = apply_requests(engine, [request], writer="operator")
        if isinstance(result, Refused) and result.code != "device_not_active":
            raise BlacklistError(f"device {device_id}: {result.detail}")
    newest = {chain.product_id: chain for chain in rotation.read_chains(engine)}
    started = [
        product_id
        for product_id, epoch in sorted(held_epochs(engine, device_id).items())
        # It was never given a key of a chain that began after its removal.
        if product_id in newest and epoch >= newest[product_id].first_epoch
    ]
    for product_id in started:
        rotate_now(engine, client, product_id, epochs)
    return started
