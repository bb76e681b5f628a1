"""Keys between the RPC's form and the custody's: open, make, seal, compare, rewrap."""

import hmac
import os

from portcullis.emm.chain import MAX_CHAIN_EPOCHS, PRODUCT_KEY_BYTES
from portcullis.keys import (
    MASTER_ID,
    Custody,
    KeyLabel,
    KeyNotOpenedError,
    MasterState,
    MasterStore,
    Purpose,
    check_value,
)
from portcullis.runtime.rpc import encryptor_pb2 as pb

MAX_EPOCH = 65535
MAX_PRODUCT_ID = 65535


class KeyRequestError(Exception):
    """A call that makes or imports keys asks for what cannot be; its text names no key."""


def open_key(custody: Custody, sealed: pb.SealedKey) -> bytes:
    """Open a sealed key of the table under its own label; raises KeyNotOpenedError.

    The import key is sealed too, but is no row: no caller has it opened.
    """
    if sealed.purpose not in (pb.SealedKey.DEVICE, pb.SealedKey.PRODUCT):
        raise KeyNotOpenedError("a sealed key that is neither a device's nor a product's")
    label = KeyLabel(
        Purpose(sealed.purpose),
        sealed.owner,
        sealed.first_epoch,
        sealed.last_epoch,
        sealed.master_id,
    )
    return custody.open(label, sealed.blob)


def make_chain(custody: Custody, request: pb.MakeChainRequest) -> pb.SealedKey:
    """Make the random top key of a chain, sealed; raises KeyRequestError."""
    if not 1 <= request.product_id <= MAX_PRODUCT_ID:
        raise KeyRequestError(f"product_id: expected 1 to {MAX_PRODUCT_ID}")
    if not 1 <= request.first_epoch <= request.last_epoch <= MAX_EPOCH:
        raise KeyRequestError(f"epochs: expected 1 to {MAX_EPOCH}, first before last")
    if request.last_epoch - request.first_epoch >= MAX_CHAIN_EPOCHS:
        raise KeyRequestError(f"a chain has at most {MAX_CHAIN_EPOCHS} epochs")
    label = pb.SealedKey(
        purpose=pb.SealedKey.PRODUCT,
        owner=request.product_id,
        first_epoch=request.first_epoch,
        last_epoch=request.last_epoch,
    )
    return _seal(custody, os.urandom(PRODUCT_KEY_BYTES), label)


def seal_device_key(custody: Custody, device_id: int, key: bytes) -> pb.SealedKey:
    """Seal the key of a device for all its epochs."""
    label = pb.SealedKey(purpose=pb.SealedKey.DEVICE, owner=device_id, last_epoch=MAX_EPOCH)
    return _seal(custody, key, label)


def compare_keys(custody: Custody, pair: pb.SameKeysRequest.Pair) -> tuple[str, str]:
    """Why `offered` cannot stand for `held`: a code and a reason, both empty for the same key."""
    held, offered = pair.held, pair.offered
    purposes = {held.purpose, offered.purpose}
    if purposes != {pb.SealedKey.DEVICE} or held.owner != offered.owner:
        return "wrong_owner", "not two keys of one device"
    try:
        is_same = hmac.compare_digest(open_key(custody, held), open_key(custody, offered))
    except KeyNotOpenedError as error:
        return "not_sealed_here", str(error)
    return ("", "") if is_same else ("other_key", f"device {held.owner} has another key already")


def rewrap(custody: Custody, sealed: pb.SealedKey) -> pb.Rewrapped:
    """Seal a key anew under the current master; the answer says why it could not be."""
    try:
        key = open_key(custody, sealed)
    except KeyNotOpenedError as error:
        return pb.Rewrapped(error=str(error))
    return pb.Rewrapped(key=_seal(custody, key, sealed))


def verify(custody: Custody, sealed: pb.SealedKey) -> str:
    """Why a key does not open under what its row says; empty if it does."""
    try:
        open_key(custody, sealed)
    except KeyNotOpenedError as error:
        return str(error)
    return ""


_STATE = {
    MasterState.CURRENT: pb.Master.CURRENT,
    MasterState.OLDER: pb.Master.OLDER,
    MasterState.WAITING: pb.Master.WAITING,
}


def describe_masters(store: MasterStore) -> list[pb.Master]:
    """The masters at hand, the current one first."""
    store.refresh()
    return [
        pb.Master(
            master_id=master_id, state=_STATE[state], check_value=check_value(store, master_id)
        )
        for master_id, state in store.masters().items()
    ]


def change_master(store: MasterStore, request: pb.ChangeMasterRequest) -> None:
    """Do to a master what is asked; raises KeyRequestError or MasterError."""
    changes = {
        pb.ChangeMasterRequest.MAKE: store.make,
        pb.ChangeMasterRequest.USE: store.use,
        pb.ChangeMasterRequest.RETIRE: store.retire,
        pb.ChangeMasterRequest.RECALL: store.recall,
    }
    if request.change not in changes:
        raise KeyRequestError("change: expected make, use, retire or recall")
    if not MASTER_ID.fullmatch(request.master_id):
        raise KeyRequestError("master_id: expected 1 to 16 letters, digits, _ . -")
    changes[request.change](request.master_id)


def _seal(custody: Custody, key: bytes, label: pb.SealedKey) -> pb.SealedKey:
    """Seal a key as what `label` says it is; the label's own master and blob do not matter."""
    sealed, blob = custody.seal(
        key, Purpose(label.purpose), label.owner, label.first_epoch, label.last_epoch
    )
    return pb.SealedKey(
        purpose=label.purpose,
        owner=sealed.owner,
        first_epoch=sealed.first_epoch,
        last_epoch=sealed.last_epoch,
        master_id=sealed.master_id,
        blob=blob,
    )
