"""Items of a Seal call to sealed sections, each answered on its own."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from portcullis.emm import (
    DEK_BYTES,
    OPEN_END,
    EmmSet,
    EmmTooLargeError,
    Kind,
    Message,
    Withdrawal,
    chain_key,
    record_head,
    seal_columns,
    seal_sets,
    segment_text,
    set_of,
    state_payload,
)
from portcullis.encryptor.keks import Keks
from portcullis.encryptor.states import States
from portcullis.keys import Custody, KeyLabel, KeyNotOpenedError, Purpose
from portcullis.runtime.rpc import encryptor_pb2 as pb

MAX_AHEAD_S = 86_400
"""A sequence further ahead of this clock is refused: a box would never hear a lower one again."""

CACHED_PRODUCT_KEYS = 10_000
"""A chain is walked once for each epoch in use, not once a call."""

Code = Literal["wrong_owner", "not_sealed_here", "sequence_ahead", "too_large", "invalid"]


_Label = tuple[int, int, int, str]
"""What a sealed key says of itself: owner, first and last epoch, master."""


class RefusedItemError(Exception):
    """One item is refused; the text says why and holds no secret."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code


_REFUSING = (RefusedItemError, EmmTooLargeError, OverflowError, ValueError)


def _why(error: Exception) -> tuple[Code, str]:
    """The code and the reason of a refusal."""
    match error:
        case RefusedItemError():
            return error.code, str(error)
        case EmmTooLargeError():
            return "too_large", str(error)
    return "invalid", f"a value is out of range: {error}"


class Sealer:
    """Builds and seals EMMs under the keys that `custody` opens. `clock`: Unix seconds.

    CustodyAwayError passes through: nothing was sealed, and the call may be made again.
    """

    def __init__(self, custody: Custody, clock: Callable[[], float]) -> None:
        self._custody = custody
        self._clock = clock
        self._keks = Keks(custody)
        self._product_key = lru_cache(maxsize=CACHED_PRODUCT_KEYS)(self._open_product_key)

    def cache_counts(self) -> tuple[int, int]:
        """Hits and misses of the bounded cache of derived KEKs."""
        return self._keks.hits, self._keks.misses

    def forget(self) -> None:
        """Drop every key of the caches: a master that is retired opens nothing from now on."""
        self._keks.forget()
        self._product_key.cache_clear()

    def seal(self, request: pb.SealRequest) -> tuple[pb.SealReply, list[int]]:
        """Seal every item; a refused one has no sections but a code and a reason.

        Returns the reply, its clock not yet set, and the places of the refused items.
        """
        products = ProductKeys(request.product_keys, self._product_key)
        latest = self._clock() + MAX_AHEAD_S
        reply = pb.SealReply()
        refused: list[int] = []
        sets: list[EmmSet] = []
        owners: list[pb.Sealed] = []  # of each set
        for place, item in enumerate(request.items):
            answer = reply.items.add()
            try:
                mine = self._sets(item, request.ca_system_id, products, latest)
            except _REFUSING as error:
                answer.code, answer.error = _why(error)
                refused.append(place)
            else:
                sets += mine
                owners += [answer] * len(mine)
        # Drawn at once and used once; this process never forks.
        sealed = seal_sets(sets, os.urandom(DEK_BYTES * len(sets)))
        for answer, sections in zip(owners, sealed, strict=True):
            answer.sections.extend(sections)
        return reply, refused

    def seal_states(self, request: pb.SealStatesRequest) -> pb.SealStatesReply:
        """Seal states that come in columns, as `seal` does; the reply's clock is not yet set.

        Raises ColumnsError.
        """
        states = States(request)
        products = ProductKeys(request.product_keys, self._product_key)
        latest = self._clock() + MAX_AHEAD_S
        records = [products.template(grant) for grant in request.grants]
        plain = states.plain(latest, records)
        found = self._keks.of_each(states.device_keys(plain, request.ca_system_id))
        keks = [kek for kek in found if kek is not None]
        plain[plain] = [kek is not None for kek in found]
        reply = pb.SealStatesReply()
        alone: dict[int, list[bytes]] = {}
        for place in np.flatnonzero(~plain).tolist():
            try:
                one = self._sets(states.item(place), request.ca_system_id, products, latest)
                (alone[place],) = seal_sets(one, os.urandom(DEK_BYTES))
            except _REFUSING as error:
                _refuse(reply, place, error)
        parts = np.zeros(len(plain), np.int64)
        sections: list[bytes] = []
        if keks:
            # Drawn at once and used once; this process never forks.
            deks = os.urandom(DEK_BYTES * len(keks))
            sections, parts[plain] = seal_columns(states.emms(plain, keks, records), deks)
        reply.sections.extend(_merged(sections, parts, alone))
        for place, mine in alone.items():
            parts[place] = len(mine)
        reply.parts.extend(parts.tolist())
        return reply

    def _sets(
        self, item: pb.SealItem, ca_system_id: int, products: "ProductKeys", latest: float
    ) -> list[EmmSet]:
        """What of an item is to be sealed: a set for its state, or one a segment."""
        address, epoch, number = item.address, item.epoch, item.number
        kek = self._kek_of(item.device_key, address, ca_system_id, epoch)
        match item.WhichOneof("content"):
            case "state":
                if number > latest:
                    raise RefusedItemError(
                        "sequence_ahead", f"sequence {number} is more than a day ahead"
                    )
                kind, payloads = Kind.STATE, [_state_payload(item.state, products)]
            case "message":
                kind, payloads = Kind.MESSAGE, [s.to_payload() for s in _segments(item.message)]
            case "withdrawal":
                kind = Kind.WITHDRAWAL
                payloads = [Withdrawal(item.withdrawal.expires_at).to_payload()]
            case _:
                raise RefusedItemError("invalid", "the item has no content")
        return [
            set_of(kek, address=address, kind=kind, epoch=epoch, number=number, payload=payload)
            for payload in payloads
        ]

    def _kek_of(self, key: pb.SealedKey, address: int, ca_system_id: int, epoch: int) -> bytes:
        label = _label(key)
        owner, first_epoch, last_epoch, _ = label
        if key.purpose != pb.SealedKey.DEVICE or owner != address:
            raise RefusedItemError("wrong_owner", f"the key is not that of device {address}")
        if not first_epoch <= epoch <= last_epoch:
            raise RefusedItemError("invalid", f"epoch {epoch} lies outside the device key's")
        try:
            return self._keks.of(KeyLabel(Purpose.DEVICE, *label), key.blob, ca_system_id, epoch)
        except KeyNotOpenedError as error:
            raise RefusedItemError("not_sealed_here", str(error)) from error

    def _open_product_key(self, label: _Label, blob: bytes, epoch: int) -> bytes:
        product_id, _, last_epoch, _ = label
        top = self._custody.open(KeyLabel(Purpose.PRODUCT, *label), blob)
        return chain_key(top, product_id, last_epoch, epoch)


class ProductKeys:
    """The product keys of one call. `derive`: a chain's key at an epoch, or KeyNotOpenedError.

    Attributes:
        records: by key index, product and epoch, once checked: what stands before the times of
            an entitlement's record, and the key behind them.
    """

    def __init__(
        self, sealed: Sequence[pb.SealedKey], derive: Callable[[_Label, bytes, int], bytes]
    ) -> None:
        self.records: dict[tuple[int, int, int], tuple[bytes, bytes]] = {}
        self._sealed = sealed
        self._derive = derive

    def record(self, index: int, product_id: int, epoch: int) -> tuple[bytes, bytes]:
        """Check that the key is `product_id`'s at that epoch; raises RefusedItemError."""
        if index >= len(self._sealed):
            raise RefusedItemError("invalid", f"product key {index} is not in the call")
        sealed = self._sealed[index]
        if sealed.purpose != pb.SealedKey.PRODUCT or sealed.owner != product_id:
            raise RefusedItemError("wrong_owner", f"the key is not that of product {product_id}")
        if not sealed.first_epoch <= epoch <= sealed.last_epoch:
            raise RefusedItemError(
                "invalid", f"epoch {epoch} lies outside the chain of product {product_id}"
            )
        try:
            key = self._derive(_label(sealed), sealed.blob, epoch)
        except KeyNotOpenedError as error:
            raise RefusedItemError("not_sealed_here", str(error)) from error
        head = record_head(product_id, epoch)
        self.records[index, product_id, epoch] = head, key
        return head, key

    def template(self, grant: pb.Grant) -> bytes | None:
        """The record of an entitlement in force, its end left zero; None: it is refused."""
        try:
            head, key = self.record(grant.key, grant.product_id, grant.epoch)
        except _REFUSING:
            return None
        return head + bytes(4) + key


def _refuse(reply: pb.SealStatesReply, place: int, error: Exception) -> None:
    code, reason = _why(error)
    reply.refusals.add(place=place, code=code, error=reason)


def _merged(
    sections: list[bytes], parts: NDArray[np.int64], alone: Mapping[int, list[bytes]]
) -> list[bytes]:
    """All sections in order: of the plain states, `parts` of each, and of the others, by place."""
    starts = (np.cumsum(parts) - parts).tolist()
    merged, start = list[bytes](), 0
    for place, mine in alone.items():
        merged += sections[start : starts[place]] + mine
        start = starts[place]
    return merged + sections[start:]


def _label(sealed: pb.SealedKey) -> _Label:
    return (sealed.owner, sealed.first_epoch, sealed.last_epoch, sealed.master_id)


def _state_payload(state: pb.State, products: ProductKeys) -> bytes:
    utc, records = state.utc, products.records
    in_force, later = [], []
    for entitlement in state.entitlements:
        product_id, epoch = entitlement.product_id, entitlement.epoch
        place = (entitlement.key, product_id, epoch)
        head, key = records.get(place) or products.record(*place)
        # Four bytes end in 2106: an end beyond is open until a later state says it.
        ends_at = min(entitlement.ends_at, OPEN_END)
        if not ends_at and not entitlement.HasField("ends_at"):
            ends_at = OPEN_END
        starts_at = entitlement.starts_at
        if starts_at > utc:  # an absent start reads as 0, which never lies ahead
            times = starts_at.to_bytes(4, "big") + ends_at.to_bytes(4, "big")
            later.append(head + times + key)
        else:
            in_force.append(head + ends_at.to_bytes(4, "big") + key)
    return state_payload(utc, in_force, later, active=state.active)


def _segments(message: pb.ScreenMessage) -> list[Message]:
    shares = segment_text(message.text)
    return [
        Message(
            segment=place,
            segments=len(shares),
            duration_s=message.duration_s,
            position=message.position,
            priority=message.priority,
            expires_at=message.expires_at,
            text=share,
        )
        for place, share in enumerate(shares, start=1)
    ]
