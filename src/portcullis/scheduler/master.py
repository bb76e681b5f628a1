"""Change of master: every row of `keys` sealed anew while everything runs.

    make (waits) → at hand in every encryptor → use → rewrap row by row → retire

Each step asks what is there and does what is missing, so that the same command
goes on after a crash at any point.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine

from portcullis.runtime.errors import PortcullisError
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.runtime.rpc.client import EncryptorClient
from portcullis.store.chains import note_key_event
from portcullis.store.rewrap import count_by_master, replace_sealed, sealed_keys

_CHUNK = 500
_Change = pb.ChangeMasterRequest


class MasterChangeError(PortcullisError):
    """The change cannot go on as things are: the text says what to do first."""


@dataclass
class Rewrapped:
    """What a rewrap has done. `refused`: (key, why it does not open)."""

    done: int = 0
    refused: list[tuple[pb.SealedKey, str]] = field(default_factory=list)


def begin_master_change(
    engine: Engine, encryptors: Sequence[EncryptorClient], new_id: str
) -> tuple[str, bool]:
    """Have every encryptor seal under a new master; returns its id, and whether it is new.

    A change that was begun before is gone on with: its master is used, and none is made.
    Raises MasterChangeError, EncryptorError.
    """
    first = encryptors[0]
    masters: Sequence[pb.Master] = first.info().masters
    waiting = [one.master_id for one in masters if one.state == pb.Master.WAITING]
    current = masters[0].master_id
    if not waiting and all(under == current for under in count_by_master(engine)):
        masters = first.change_master(_Change.MAKE, new_id)
        waiting = [new_id]
    chosen = waiting[0] if waiting else current
    _check_at_hand(encryptors, _master(masters, chosen))
    for encryptor in encryptors:
        encryptor.change_master(_Change.USE, chosen)
    note_key_event(engine, "master_used", master_id=chosen, is_new=chosen == new_id)
    return chosen, chosen == new_id


def _master(masters: Sequence[pb.Master], master_id: str) -> pb.Master:
    return next(one for one in masters if one.master_id == master_id)


def _check_at_hand(encryptors: Sequence[EncryptorClient], master: pb.Master) -> None:
    """Raise MasterChangeError unless each has the same master of this name."""
    for encryptor in encryptors:
        values = {one.master_id: one.check_value for one in encryptor.info().masters}
        if values.get(master.master_id) != master.check_value:
            has = "another" if master.master_id in values else "no"
            raise MasterChangeError(
                f"encryptor {encryptor.address} has {has} master {master.master_id}: copy the"
                f" master key file of {encryptors[0].address} there, then run this again"
            )


def rewrap_all(
    engine: Engine, encryptor: EncryptorClient, master_id: str, progress: Callable[[int], None]
) -> Rewrapped:
    """Seal every row that is under another master anew under the current one.

    `progress` is told how many rows each step has dealt with. Raises EncryptorError.
    """
    result = Rewrapped()
    for chunk in sealed_keys(engine, _CHUNK, not_under=master_id):
        pairs = []
        for old, answer in zip(chunk, encryptor.rewrap(chunk), strict=True):
            if answer.error:
                result.refused.append((old, answer.error))
            else:
                pairs.append((old, answer.key))
        if pairs:
            result.done += replace_sealed(engine, pairs)
        progress(len(chunk))
    refused = len(result.refused)
    note_key_event(
        engine, "keys_rewrapped", master_id=master_id, count=result.done, refused=refused
    )
    return result


def verify_all(
    engine: Engine, encryptor: EncryptorClient, progress: Callable[[int], None]
) -> Rewrapped:
    """Ask of every row whether it opens; `done` counts those that do. Raises EncryptorError."""
    result = Rewrapped()
    for chunk in sealed_keys(engine, _CHUNK):
        for key, error in zip(chunk, encryptor.verify(chunk), strict=True):
            if error:
                result.refused.append((key, error))
            else:
                result.done += 1
        progress(len(chunk))
    return result


def retire_master(engine: Engine, encryptors: Sequence[EncryptorClient], master_id: str) -> None:
    """Put a master aside, once no row needs it. Raises MasterChangeError, EncryptorError."""
    for encryptor in encryptors:
        if encryptor.info().masters[0].master_id == master_id:
            raise MasterChangeError(
                f"master {master_id} is the current one of {encryptor.address};"
                " `portcullis keys rotate --master` first"
            )
    _check_unused(engine, master_id)
    note_key_event(engine, "master_retired", master_id=master_id)
    for encryptor in encryptors:
        encryptor.change_master(_Change.RETIRE, master_id)
    try:
        # An import under way may have written what was sealed before.
        _check_unused(engine, master_id)
    except MasterChangeError:
        recall_master(engine, encryptors, master_id)
        raise


def _check_unused(engine: Engine, master_id: str) -> None:
    rows = count_by_master(engine).get(master_id, 0)
    if rows:
        raise MasterChangeError(
            f"{rows} keys are sealed under master {master_id};"
            " `portcullis keys rotate --master` rewraps them"
        )


def recall_master(engine: Engine, encryptors: Sequence[EncryptorClient], master_id: str) -> None:
    """Have a retired master open rows again, as a restored backup needs. Raises EncryptorError."""
    note_key_event(engine, "master_recalled", master_id=master_id)
    for encryptor in encryptors:
        encryptor.change_master(_Change.RECALL, master_id)
