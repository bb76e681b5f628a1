"""Pure: from claims and orders to what the encryptor is asked, and from its answer to EMMs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import RowMapping

from portcullis.emm import Kind
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.store.keys import sealed_key
from portcullis.store.to_seal import Orders, begins_at
from portcullis.store.work import Claimed, Finished, SealedEmm


@dataclass
class Draft:
    """An EMM to be: everything but its sections."""

    claimed: Claimed
    message_id: int
    kind: Kind
    cause: str
    starts_at: datetime | None = None
    ends_at: datetime | None = None

    def sealed(self, sections: Sequence[bytes]) -> SealedEmm:
        """The EMM, now that it is sealed."""
        return SealedEmm(
            device_id=self.claimed.device_id,
            message_id=self.message_id,
            kind=self.kind,
            epoch=self.claimed.epoch,
            number=self.message_id or self.claimed.sequence,
            cause=self.cause,
            covers=self.claimed.wanted,
            sections=sections,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            ordered_at=self.claimed.dirty_at if self.cause == "order" else None,
        )


@dataclass
class Batch:
    """What the encryptor is asked, with what its items stand for, index by index."""

    product_keys: list[pb.SealedKey] = field(default_factory=list)
    items: list[pb.SealItem] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    idle: list[Claimed] = field(default_factory=list)
    """Claimed, but nothing is to be sealed: a message that was over before its turn."""
    waiting: dict[int, str] = field(default_factory=dict)
    """device → what it waits for: a product's key that is about to be made."""
    refused: dict[int, str] = field(default_factory=dict)
    """device → why it cannot be sealed."""
    held: dict[int, dict[int, int]] = field(default_factory=dict)


class _WaitsForKeyError(Exception):
    """A product has no chain yet."""


def build_batch(claims: Sequence[Claimed], orders: Orders) -> Batch:
    """Lay a batch of claims out as one request."""
    batch = Batch()
    key_index: dict[tuple[int, int], int] = {}
    for claimed in claims:
        device_key = orders.device_keys.get(claimed.device_id)
        texts = orders.messages.get(claimed.device_id, ())
        if device_key is None:
            batch.refused[claimed.device_id] = "no device key has been imported for it"
            continue
        if not claimed.seals_state and not texts:
            batch.idle.append(claimed)
            continue
        if claimed.seals_state:
            if claimed.held is None:
                batch.refused[claimed.device_id] = "damaged_row: device_work.held cannot be read"
                continue
            try:
                state, held = _state(claimed, claimed.held, orders, batch.product_keys, key_index)
            except _WaitsForKeyError as reason:
                batch.waiting[claimed.device_id] = str(reason)
                continue
            batch.held[claimed.device_id] = held
            _add(batch, Draft(claimed, 0, Kind.STATE, claimed.cause), device_key).state.CopyFrom(
                state
            )
        for row in texts:
            _add_message(batch, claimed, device_key, row)
    return batch


def _add(batch: Batch, draft: Draft, device_key: pb.SealedKey) -> pb.SealItem:
    item = pb.SealItem(
        address=draft.claimed.device_id,
        epoch=draft.claimed.epoch,
        number=draft.message_id or draft.claimed.sequence,
        device_key=device_key,
    )
    batch.drafts.append(draft)
    batch.items.append(item)
    return item


def _add_message(batch: Batch, claimed: Claimed, device_key: pb.SealedKey, row: RowMapping) -> None:
    withdrawn = row["removed_at"] is not None
    draft = Draft(
        claimed,
        row["message_id"],
        Kind.WITHDRAWAL if withdrawn else Kind.MESSAGE,
        "order",
        starts_at=None if withdrawn else begins_at(row["starts_at"], row["ordered_at"]),
        ends_at=row["expires_at"],
    )
    item = _add(batch, draft, device_key)
    expires_at = int(row["expires_at"].timestamp())
    if withdrawn:
        item.withdrawal.expires_at = expires_at
    else:
        item.message.CopyFrom(
            pb.ScreenMessage(
                text=row["text"],
                duration_s=row["duration_s"],
                position=row["position"],
                priority=row["priority"],
                expires_at=expires_at,
            )
        )


def _state(
    claimed: Claimed,
    held_before: Mapping[int, int],
    orders: Orders,
    product_keys: list[pb.SealedKey],
    key_index: dict[tuple[int, int], int],
) -> tuple[pb.State, dict[int, int]]:
    state = pb.State(
        active=orders.active.get(claimed.device_id, False), utc=int(orders.now.timestamp())
    )
    held = dict(held_before)
    if not state.active:
        return state, held
    for product_id, starts_at, ends_at in orders.entitlements.get(claimed.device_id, ()):
        chains = orders.chains.get(product_id)
        if not chains:
            raise _WaitsForKeyError(f"product {product_id} has no key yet")
        for chain in chains:
            epoch = epoch_for(chain, ends_at)
            if epoch is None:
                continue
            place = (product_id, chain["first_epoch"])
            if place not in key_index:
                key_index[place] = len(product_keys)
                product_keys.append(sealed_key(chain))
            state.entitlements.add(
                product_id=product_id,
                epoch=epoch,
                starts_at=_later(starts_at, orders.now),
                ends_at=None if ends_at is None else int(ends_at.timestamp()),
                key=key_index[place],
            )
            held[product_id] = max(epoch, held.get(product_id, 0))
    return state, held


def _later(start: datetime | None, now: datetime) -> int | None:
    return int(start.timestamp()) if start is not None and start > now else None


def epoch_for(chain: Mapping[str, object] | RowMapping, ends_at: datetime | None) -> int | None:
    """The epoch of a chain that a window gets: the next one only if the window reaches into it.

    None: the chain goes live only after the window has ended.
    """
    live, seal, switch_at = chain["live_epoch"], chain["seal_epoch"], chain["switch_at"]
    assert live is None or isinstance(live, int)  # noqa: S101 (the column's type)
    assert isinstance(seal, int)  # noqa: S101 (the column's type)
    if ends_at is None or not isinstance(switch_at, datetime) or ends_at > switch_at:
        return seal
    return live


def read_reply(batch: Batch, answers: Sequence[pb.Sealed]) -> tuple[list[Finished], dict[int, str]]:
    """Match the encryptor's answers to their claims.

    Returns what is finished, and device → reason for every device of which any EMM was
    refused: such a device is not written at all.
    """
    refused = dict(batch.refused)
    sealed: dict[int, list[SealedEmm]] = {}
    claims: dict[int, Claimed] = {}
    for draft, answer in zip(batch.drafts, answers, strict=True):
        device_id = draft.claimed.device_id
        claims[device_id] = draft.claimed
        if answer.sections:
            sealed.setdefault(device_id, []).append(draft.sealed(list(answer.sections)))
        else:
            refused[device_id] = f"{answer.code}: {answer.error}"
    finished = [
        Finished(claims[device_id], emms, batch.held.get(device_id, claims[device_id].held))
        for device_id, emms in sealed.items()
        if device_id not in refused
    ]
    finished += [Finished(claimed, (), claimed.held) for claimed in batch.idle]
    return finished, refused
