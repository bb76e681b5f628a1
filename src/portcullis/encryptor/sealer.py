"""Items of a Seal call to sealed sections, each answered on its own."""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Literal

from portcullis.emm import (
    DEK_BYTES,
    OPEN_END,
    EmmSet,
    EmmTooLargeError,
    Kind,
    Message,
    Withdrawal,
    chain_key,
    derive_kek,
    entitlement_record,
    seal_sets,
    segment_text,
    set_of,
    state_payload,
)
from portcullis.keys import Custody, KeyLabel, KeyNotOpenedError, Purpose
from portcullis.runtime.rpc import encryptor_pb2 as pb

MAX_AHEAD_S = 86_400
"""A sequence further ahead of this clock is refused: a box would never hear a lower one again."""

CACHED_KEKS = 100_000
"""About 60 MB; the boxes that had orders of late."""

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


class Sealer:
    """Builds and seals EMMs under the keys that `custody` opens. `clock`: Unix seconds.

    CustodyAwayError passes through: nothing was sealed, and the call may be made again.
    """

    def __init__(self, custody: Custody, clock: Callable[[], float]) -> None:
        self._custody = custody
        self._clock = clock
        self._kek = lru_cache(maxsize=CACHED_KEKS)(self._open_kek)
        self._product_key = lru_cache(maxsize=CACHED_PRODUCT_KEYS)(self._open_product_key)

    def cache_counts(self) -> tuple[int, int]:
        """Hits and misses of the bounded cache of derived KEKs."""
        info = self._kek.cache_info()
        return info.hits, info.misses

    def forget(self) -> None:
        """Drop every KEK of the cache: a master that is retired opens nothing from now on."""
        self._kek.cache_clear()

    def seal(self, request: pb.SealRequest) -> list[pb.Sealed]:
        """Seal every item; a refused one has no sections but a code and a reason."""
        products = ProductKeys(request.product_keys, self._product_key)
        sets: list[EmmSet] = []
        replies: list[pb.Sealed | None] = []
        ends: list[int] = []  # of each item's share of `sets`
        for item in request.items:
            try:
                sets += self._sets(item, request.ca_system_id, products)
                replies.append(None)
            except RefusedItemError as error:
                replies.append(pb.Sealed(error=str(error), code=error.code))
            except EmmTooLargeError as error:
                replies.append(pb.Sealed(error=str(error), code="too_large"))
            except (OverflowError, ValueError) as error:
                replies.append(pb.Sealed(error=f"a value is out of range: {error}", code="invalid"))
            ends.append(len(sets))
        # Drawn at once and used once; this process never forks.
        sections = seal_sets(sets, os.urandom(DEK_BYTES * len(sets)))
        return [
            refusal or pb.Sealed(sections=chain.from_iterable(sections[start:end]))
            for refusal, start, end in zip(replies, [0, *ends], ends, strict=False)
        ]

    def _sets(self, item: pb.SealItem, ca_system_id: int, products: "ProductKeys") -> list[EmmSet]:
        """What of an item is to be sealed: a set for its state, or one a segment."""
        kek = self._kek_of(item, ca_system_id)
        kind, payloads = self._payloads(item, products)
        return [
            set_of(
                kek,
                address=item.address,
                kind=kind,
                epoch=item.epoch,
                number=item.number,
                payload=payload,
            )
            for payload in payloads
        ]

    def _kek_of(self, item: pb.SealItem, ca_system_id: int) -> bytes:
        key = item.device_key
        if key.purpose != pb.SealedKey.DEVICE or key.owner != item.address:
            raise RefusedItemError("wrong_owner", f"the key is not that of device {item.address}")
        if not key.first_epoch <= item.epoch <= key.last_epoch:
            raise RefusedItemError("invalid", f"epoch {item.epoch} lies outside the device key's")
        try:
            return self._kek(_label(key), key.blob, ca_system_id, item.epoch)
        except KeyNotOpenedError as error:
            raise RefusedItemError("not_sealed_here", str(error)) from error

    def _open_kek(self, label: _Label, blob: bytes, ca_system_id: int, epoch: int) -> bytes:
        key = self._custody.open(KeyLabel(Purpose.DEVICE, *label), blob)
        return derive_kek(key, ca_system_id, label[0], epoch)

    def _open_product_key(self, label: _Label, blob: bytes, epoch: int) -> bytes:
        product_id, _, last_epoch, _ = label
        top = self._custody.open(KeyLabel(Purpose.PRODUCT, *label), blob)
        return chain_key(top, product_id, last_epoch, epoch)

    def _payloads(self, item: pb.SealItem, products: "ProductKeys") -> tuple[Kind, list[bytes]]:
        match item.WhichOneof("content"):
            case "state":
                if item.number > self._clock() + MAX_AHEAD_S:
                    raise RefusedItemError(
                        "sequence_ahead", f"sequence {item.number} is more than a day ahead"
                    )
                return Kind.STATE, [_state_payload(item.state, products)]
            case "message":
                return Kind.MESSAGE, [part.to_payload() for part in _segments(item.message)]
            case "withdrawal":
                return Kind.WITHDRAWAL, [Withdrawal(item.withdrawal.expires_at).to_payload()]
            case _:
                raise RefusedItemError("invalid", "the item has no content")


class ProductKeys:
    """The product keys of one call. `derive`: a chain's key at an epoch, or KeyNotOpenedError."""

    def __init__(
        self, sealed: Sequence[pb.SealedKey], derive: Callable[[_Label, bytes, int], bytes]
    ) -> None:
        self._sealed = sealed
        self._derive = derive
        self._checked: dict[tuple[int, int, int], bytes] = {}  # index, product, epoch

    def at(self, index: int, product_id: int, epoch: int) -> bytes:
        """The key of one epoch, checked to be `product_id`'s; raises RefusedItemError."""
        if (key := self._checked.get((index, product_id, epoch))) is not None:
            return key
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
        self._checked[index, product_id, epoch] = key
        return key


def _label(sealed: pb.SealedKey) -> _Label:
    return (sealed.owner, sealed.first_epoch, sealed.last_epoch, sealed.master_id)


def _state_payload(state: pb.State, products: ProductKeys) -> bytes:
    utc = state.utc
    in_force, later = [], []
    for entitlement in state.entitlements:
        product_id, epoch = entitlement.product_id, entitlement.epoch
        key = products.at(entitlement.key, product_id, epoch)
        # Four bytes end in 2106: an end beyond is open until a later state says it.
        ends_at = min(entitlement.ends_at, OPEN_END)
        if not ends_at and not entitlement.HasField("ends_at"):
            ends_at = OPEN_END
        starts_at = entitlement.starts_at
        if starts_at > utc:  # an absent start reads as 0, which never lies ahead
            later.append(entitlement_record(product_id, epoch, ends_at, key, starts_at))
        else:
            in_force.append(entitlement_record(product_id, epoch, ends_at, key))
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
