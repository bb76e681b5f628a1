"""Pure: from claims and orders to what the encryptor is asked, and from its answer to EMMs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import RowMapping

from portcullis.emm import OPEN_END, Kind
from portcullis.runtime.rpc import encryptor_pb2 as pb
from portcullis.store.keys import DeviceKey, sealed_device_key, sealed_key
from portcullis.store.to_seal import Chain, Orders, Window, begins_at
from portcullis.store.work import Claimed, Finished, SealedEmm


@dataclass
class Draft:
    """The EMM of a message, or its withdrawal, to be: everything but its sections."""

    claimed: Claimed
    message_id: int
    kind: Kind
    starts_at: datetime | None
    ends_at: datetime

    def sealed(self, sections: Sequence[bytes]) -> SealedEmm:
        """The EMM, now that it is sealed."""
        return SealedEmm(
            device_id=self.claimed.device_id,
            message_id=self.message_id,
            kind=self.kind,
            epoch=self.claimed.epoch,
            number=self.message_id,
            cause="order",
            covers=self.claimed.wanted,
            sections=sections,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            ordered_at=self.claimed.dirty_at,
        )


def _state(claimed: Claimed, sections: Sequence[bytes]) -> SealedEmm:
    """A state, sealed."""
    device_id, covers, _, epoch, number, cause, _, _, dirty_at, _ = claimed
    ordered_at = dirty_at if cause == "order" else None
    return SealedEmm(
        device_id, 0, Kind.STATE, epoch, number, cause, covers, sections, None, None, ordered_at
    )


@dataclass
class Batch:
    """What the encryptor is asked, with what its states and items stand for, place by place."""

    states: pb.SealStatesRequest = field(default_factory=pb.SealStatesRequest)
    stated: list[Claimed] = field(default_factory=list)
    """Whose states they are."""
    items: list[pb.SealItem] = field(default_factory=list)
    """Messages and withdrawals."""
    item_drafts: list[Draft] = field(default_factory=list)
    idle: list[Claimed] = field(default_factory=list)
    """Claimed, but nothing is to be sealed: a message that was over before its turn."""
    waiting: dict[int, str] = field(default_factory=dict)
    """device → what it waits for: a product's key that is about to be made."""
    refused: dict[int, str] = field(default_factory=dict)
    """device → why it cannot be sealed."""
    held: dict[int, Mapping[int, int]] = field(default_factory=dict)


class _WaitsForKeyError(Exception):
    """A product has no chain yet."""


def build_batch(claims: Sequence[Claimed], orders: Orders, ca_system_id: int) -> Batch:
    """Lay a batch of claims out as one request."""
    states = _States(ca_system_id, orders)
    batch = Batch()
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
                epochs = states.add(claimed, device_key)
            except _WaitsForKeyError as reason:
                batch.waiting[claimed.device_id] = str(reason)
                continue
            batch.held[claimed.device_id] = _highest(claimed.held, epochs)
            batch.stated.append(claimed)
        for row in texts:
            _add_message(batch, claimed, device_key, row)
    batch.states = states.request()
    return batch


def _add_message(batch: Batch, claimed: Claimed, device_key: DeviceKey, row: RowMapping) -> None:
    withdrawn = row["removed_at"] is not None
    draft = Draft(
        claimed,
        row["message_id"],
        Kind.WITHDRAWAL if withdrawn else Kind.MESSAGE,
        starts_at=None if withdrawn else begins_at(row["starts_at"], row["ordered_at"]),
        ends_at=row["expires_at"],
    )
    item = pb.SealItem(
        address=claimed.device_id,
        epoch=claimed.epoch,
        number=draft.message_id,
        device_key=sealed_device_key(claimed.device_id, *device_key),
    )
    batch.item_drafts.append(draft)
    batch.items.append(item)
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


_COLUMNS = (
    "addresses",
    "epochs",
    "numbers",
    "device_key_labels",
    "device_keys",
    "active",
    "entitlements",
)
_ENTITLEMENT_COLUMNS = ("entitlement_grants", "entitlement_starts_at", "entitlement_ends_at")


class _Bundle(NamedTuple):
    """What a state says of its box's rights: grant, start and end of each, and the epochs of all.

    Boxes that hold the same are told the same.
    """

    entitlements: list[tuple[int, int, int]]
    epochs: dict[int, int]


class _States:
    """The states of a batch, and what they have in common, to be laid out in columns."""

    def __init__(self, ca_system_id: int, orders: Orders) -> None:
        self._orders = orders
        self._bundles: dict[tuple[Window, ...], _Bundle] = {}
        self._keys: dict[tuple[int, int], int] = {}
        self._grants: dict[tuple[int, int, int], int] = {}
        self._labels: dict[tuple[int, int, str], int] = {}
        self._states: list[tuple[int, int, int, int, bytes, bool, int]] = []
        self._entitlements: list[tuple[int, int, int]] = []
        self._now = int(orders.now.timestamp())
        self._request = pb.SealStatesRequest(ca_system_id=ca_system_id, utc=self._now)

    def add(self, claimed: Claimed, key: DeviceKey) -> Mapping[int, int]:
        """Add a device's state; returns the epochs in it. Raises _WaitsForKeyError."""
        active = self._orders.active.get(claimed.device_id, False)
        held = tuple(self._orders.entitlements.get(claimed.device_id, ())) if active else ()
        bundle = self._bundles.get(held) or self._bundle(held)
        first_epoch, last_epoch, master_id, blob = key
        self._states.append(
            (
                claimed.device_id,
                claimed.epoch,
                claimed.sequence,
                self._label((first_epoch, last_epoch, master_id)),
                blob,
                active,
                len(bundle.entitlements),
            )
        )
        self._entitlements += bundle.entitlements
        return bundle.epochs

    def request(self) -> pb.SealStatesRequest:
        """What the encryptor is asked; nothing may be added any more."""
        for columns, rows in ((_COLUMNS, self._states), (_ENTITLEMENT_COLUMNS, self._entitlements)):
            for name, values in zip(columns, zip(*rows, strict=True), strict=False):
                getattr(self._request, name).extend(values)
        return self._request

    def _bundle(self, held: tuple[Window, ...]) -> _Bundle:
        bundle = _Bundle([], {})
        for product_id, starts_at, ends_at in held:
            chains = self._orders.chains.get(product_id)
            if not chains:
                raise _WaitsForKeyError(f"product {product_id} has no key yet")
            start = _later(starts_at, self._now)
            end = OPEN_END if ends_at is None else ends_at
            for chain in chains:
                epoch = epoch_for(chain, ends_at)
                if epoch is None:
                    continue
                grant = self._grants.get((product_id, chain["first_epoch"], epoch))
                if grant is None:
                    grant = self._grant(product_id, chain, epoch)
                bundle.entitlements.append((grant, start, end))
                bundle.epochs[product_id] = max(epoch, bundle.epochs.get(product_id, 0))
        self._bundles[held] = bundle
        return bundle

    def _grant(self, product_id: int, chain: Chain, epoch: int) -> int:
        """Have a grant of the chain's key at an epoch; returns its index."""
        request, first_epoch = self._request, chain["first_epoch"]
        key = self._keys.setdefault((product_id, first_epoch), len(self._keys))
        if key == len(request.product_keys):
            request.product_keys.append(sealed_key(chain))
        request.grants.add(product_id=product_id, epoch=epoch, key=key)
        return self._grants.setdefault((product_id, first_epoch, epoch), len(self._grants))

    def _label(self, label: tuple[int, int, str]) -> int:
        index = self._labels.get(label)
        if index is None:
            index = self._labels[label] = len(self._labels)
            first_epoch, last_epoch, master_id = label
            self._request.labels.add(
                first_epoch=first_epoch, last_epoch=last_epoch, master_id=master_id
            )
        return index


def _later(starts_at: int | None, now: int) -> int:
    """A start that lies ahead; 0 where none does."""
    return starts_at if starts_at is not None and starts_at > now else 0


def _highest(before: Mapping[int, int], epochs: Mapping[int, int]) -> Mapping[int, int]:
    """The highest epoch of each product that was ever sealed; `before` itself if that says it."""
    later = {p: epoch for p, epoch in epochs.items() if epoch > before.get(p, 0)}
    return {**before, **later} if later else before


def epoch_for(chain: Chain, ends_at: int | None) -> int | None:
    """The epoch of a chain that a window gets: the next one only if the window reaches into it.

    None: the chain goes live only after the window has ended.
    """
    live, seal, switch_at = chain["live_epoch"], chain["seal_epoch"], chain["switch_at"]
    assert live is None or isinstance(live, int)  # noqa: S101 (the column's type)
    assert isinstance(seal, int)  # noqa: S101 (the column's type)
    if ends_at is None or not isinstance(switch_at, datetime) or ends_at > switch_at.timestamp():
        return seal
    return live


def read_reply(
    batch: Batch, states: pb.SealStatesReply, answers: Sequence[pb.Sealed]
) -> tuple[list[Finished], dict[int, str]]:
    """Match the encryptor's answers to their claims.

    Returns what is finished, and device → reason for every device of which any EMM was
    refused: such a device is not written at all.
    """
    refused = dict(batch.refused)
    emms = {
        claimed.device_id: (claimed, [_state(claimed, sections)])
        for claimed, sections in zip(batch.stated, _by_state(states), strict=True)
    }
    for refusal in states.refusals:
        device_id = batch.stated[refusal.place].device_id
        refused[device_id] = f"{refusal.code}: {refusal.error}"
    for draft, answer in zip(batch.item_drafts, answers, strict=True):
        device_id = draft.claimed.device_id
        if answer.sections:
            mine = emms.setdefault(device_id, (draft.claimed, []))[1]
            mine.append(draft.sealed(list(answer.sections)))
        else:
            refused[device_id] = f"{answer.code}: {answer.error}"
    finished = [
        Finished(claimed, sealed, batch.held.get(device_id, claimed.held))
        for device_id, (claimed, sealed) in emms.items()
        if device_id not in refused
    ]
    finished += [Finished(claimed, (), claimed.held) for claimed in batch.idle]
    return finished, refused


def _by_state(states: pb.SealStatesReply) -> Iterator[list[bytes]]:
    """The sections of each state; none of one that was refused."""
    sections, end = list(states.sections), 0
    for parts in states.parts:
        start, end = end, end + parts
        yield sections[start:end]
