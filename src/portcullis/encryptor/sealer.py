"""Items of a Seal call to sealed sections, each answered on its own."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Literal

from portcullis.emm import (
    DEK_BYTES,
    OPEN_END,
    EmmTooLargeError,
    EntitlementRecord,
    Kind,
    Message,
    State,
    Withdrawal,
    chain_key,
    derive_kek,
    seal_set,
    segment_text,
)
from portcullis.encryptor.custodian import open_key
from portcullis.keys import Custody, KeyLabel, KeyNotOpenedError, Purpose
from portcullis.runtime.rpc import encryptor_pb2 as pb

MAX_AHEAD_S = 86_400
"""A sequence further ahead of this clock is refused: a box would never hear a lower one again."""

CACHED_KEKS = 100_000
"""About 60 MB; the boxes that had orders of late."""

Code = Literal["wrong_owner", "not_sealed_here", "sequence_ahead", "too_large", "invalid"]


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

    def cache_counts(self) -> tuple[int, int]:
        """Hits and misses of the bounded cache of derived KEKs."""
        info = self._kek.cache_info()
        return info.hits, info.misses

    def forget(self) -> None:
        """Drop every KEK of the cache: a master that is retired opens nothing from now on."""
        self._kek.cache_clear()

    def seal(self, request: pb.SealRequest) -> list[pb.Sealed]:
        """Seal every item; a refused one has no sections but a code and a reason."""
        products = ProductKeys(self._custody, request.product_keys)
        deks = fresh_deks(len(request.items))
        replies = []
        for item in request.items:
            try:
                kek = self._kek_of(item, request.ca_system_id)
                replies.append(pb.Sealed(sections=self._sections(item, kek, products, deks)))
            except RefusedItemError as error:
                replies.append(pb.Sealed(error=str(error), code=error.code))
            except EmmTooLargeError as error:
                replies.append(pb.Sealed(error=str(error), code="too_large"))
            except (OverflowError, ValueError) as error:
                replies.append(pb.Sealed(error=f"a value is out of range: {error}", code="invalid"))
        return replies

    def _kek_of(self, item: pb.SealItem, ca_system_id: int) -> bytes:
        key = item.device_key
        if key.purpose != pb.SealedKey.DEVICE or key.owner != item.address:
            raise RefusedItemError("wrong_owner", f"the key is not that of device {item.address}")
        if not key.first_epoch <= item.epoch <= key.last_epoch:
            raise RefusedItemError("invalid", f"epoch {item.epoch} lies outside the device key's")
        label = KeyLabel(Purpose.DEVICE, key.owner, key.first_epoch, key.last_epoch, key.master_id)
        try:
            return self._kek(label, key.blob, ca_system_id, item.epoch)
        except KeyNotOpenedError as error:
            raise RefusedItemError("not_sealed_here", str(error)) from error

    def _open_kek(self, label: KeyLabel, blob: bytes, ca_system_id: int, epoch: int) -> bytes:
        return derive_kek(self._custody.open(label, blob), ca_system_id, label.owner, epoch)

    def _sections(
        self, item: pb.SealItem, kek: bytes, products: "ProductKeys", deks: Iterator[bytes]
    ) -> list[bytes]:
        kind, payloads = self._payloads(item, products)
        return [
            section
            for payload in payloads
            for section in seal_set(
                kek,
                next(deks),
                address=item.address,
                kind=kind,
                epoch=item.epoch,
                number=item.number,
                payload=payload,
            )
        ]

    def _payloads(self, item: pb.SealItem, products: "ProductKeys") -> tuple[Kind, list[bytes]]:
        match item.WhichOneof("content"):
            case "state":
                if item.number > self._clock() + MAX_AHEAD_S:
                    raise RefusedItemError(
                        "sequence_ahead", f"sequence {item.number} is more than a day ahead"
                    )
                return Kind.STATE, [_state(item.state, products).to_payload()]
            case "message":
                return Kind.MESSAGE, [part.to_payload() for part in _segments(item.message)]
            case "withdrawal":
                return Kind.WITHDRAWAL, [Withdrawal(item.withdrawal.expires_at).to_payload()]
            case _:
                raise RefusedItemError("invalid", "the item has no content")


class ProductKeys:
    """The product keys of one call, each opened once, each epoch derived once."""

    def __init__(self, custody: Custody, sealed: Sequence[pb.SealedKey]) -> None:
        self._sealed = sealed
        self._opened: dict[int, bytes] = {}
        self._derived: dict[tuple[int, int], bytes] = {}
        self._custody = custody

    def at(self, index: int, product_id: int, epoch: int) -> bytes:
        """The key of one epoch, checked to be `product_id`'s; raises RefusedItemError."""
        if index >= len(self._sealed):
            raise RefusedItemError("invalid", f"product key {index} is not in the call")
        sealed = self._sealed[index]
        if sealed.purpose != pb.SealedKey.PRODUCT or sealed.owner != product_id:
            raise RefusedItemError("wrong_owner", f"the key is not that of product {product_id}")
        if not sealed.first_epoch <= epoch <= sealed.last_epoch:
            raise RefusedItemError(
                "invalid", f"epoch {epoch} lies outside the chain of product {product_id}"
            )
        if (key := self._derived.get((index, epoch))) is None:
            top = self._open(index)
            key = chain_key(top, product_id, sealed.last_epoch, epoch)
            self._derived[index, epoch] = key
        return key

    def _open(self, index: int) -> bytes:
        if (key := self._opened.get(index)) is None:
            try:
                key = open_key(self._custody, self._sealed[index])
            except KeyNotOpenedError as error:
                raise RefusedItemError("not_sealed_here", str(error)) from error
            self._opened[index] = key
        return key


def fresh_deks(batch: int) -> Iterator[bytes]:
    """Data encryption keys without end, drawn `batch` at a time, each given out once."""
    while True:
        block = os.urandom(DEK_BYTES * batch)
        for at in range(0, len(block), DEK_BYTES):
            yield block[at : at + DEK_BYTES]


def _state(state: pb.State, products: ProductKeys) -> State:
    return State(
        state.active,
        state.utc,
        tuple(
            EntitlementRecord(
                product_id=entitlement.product_id,
                epoch=entitlement.epoch,
                # Four bytes end in 2106: an end beyond is open until a later state says it.
                ends_at=(
                    min(entitlement.ends_at, OPEN_END)
                    if entitlement.HasField("ends_at")
                    else OPEN_END
                ),
                key=products.at(entitlement.key, entitlement.product_id, entitlement.epoch),
                # An absent start reads as 0, which never lies ahead.
                starts_at=entitlement.starts_at if entitlement.starts_at > state.utc else None,
            )
            for entitlement in state.entitlements
        ),
    )


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
