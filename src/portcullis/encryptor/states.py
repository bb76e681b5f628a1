"""The columns of a SealStates call: checked and laid out all at once."""

from collections.abc import Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from portcullis.emm import (
    MAX_ENTITLEMENTS,
    OPEN_END,
    RECORD,
    TLV_IN_FORCE,
    TLV_LATER,
    EmmColumns,
    Kind,
    in_range,
    kek_expansions,
    state_payloads,
)
from portcullis.encryptor.keks import DeviceKeys
from portcullis.keys import LABEL_BYTES, LABEL_OWNER, KeyLabel, Purpose
from portcullis.runtime.rpc import encryptor_pb2 as pb

_NO_EPOCH = (1, 0)  # from 1 to 0

_Common = tuple[int, int, str]
"""What device keys have in common: first and last epoch, master."""


class ColumnsError(Exception):
    """The columns of a call are not of one length: no value can be told to be a state's."""


class States:
    """The states of a call, by place; raises ColumnsError.

    A state is *plain* where nothing stands against it but, perhaps, its device key. The others are
    to be looked at one by one, as `item`s.
    """

    def __init__(self, request: pb.SealStatesRequest) -> None:
        self._request = request
        self._addresses = np.asarray(request.addresses, np.uint64)
        self._epochs = np.asarray(request.epochs, np.uint32)
        self._numbers = np.asarray(request.numbers, np.uint64)
        self._label_of = np.asarray(request.device_key_labels, np.uint32)
        self._active = np.asarray(request.active, np.bool_)
        self._counts = np.asarray(request.entitlements, np.int64)
        self._grant_of = np.asarray(request.entitlement_grants, np.uint32)
        self._starts_at = np.asarray(request.entitlement_starts_at, np.int64)
        self._ends_at = np.asarray(request.entitlement_ends_at, np.int64)
        states = (self._epochs, self._numbers, self._label_of, self._active, self._counts)
        entitlements = (self._grant_of, self._starts_at, self._ends_at)
        if (
            {len(column) for column in (*states, request.device_keys)} != {len(self._addresses)}
            or {len(column) for column in entitlements} != {int(self._counts.sum())}
        ):  # fmt: skip
            raise ColumnsError("the columns are not of one length")
        self._labels = [
            (label.first_epoch, label.last_epoch, label.master_id) for label in request.labels
        ]
        self._laid_out = list(map(_laid_out, self._labels))

    def plain(self, latest: float, records: Sequence[bytes | None]) -> NDArray[np.bool_]:
        """Which states are plain. `latest`: the highest number; None: a grant that is refused."""
        utc = self._request.utc
        epochs = [
            label[:2] if laid_out else _NO_EPOCH
            for label, laid_out in zip(self._labels, self._laid_out, strict=True)
        ]
        label_of = np.minimum(self._label_of, len(epochs))
        first, last = np.array([*epochs, _NO_EPOCH])[label_of].T
        granted = np.array([record is not None for record in records] + [False])
        good = granted[np.minimum(self._grant_of, len(records))]
        good &= (self._starts_at <= OPEN_END) & (self._ends_at >= 0)
        plain = in_range(self._addresses, self._epochs, self._numbers)
        plain &= (first <= self._epochs) & (self._epochs <= last) & (self._numbers <= latest)
        plain &= (self._counts <= MAX_ENTITLEMENTS) & (0 <= utc <= OPEN_END)
        plain[np.repeat(np.arange(len(plain)), self._counts)[~good]] = False
        return plain

    def device_keys(self, plain: NDArray[np.bool_], ca_system_id: int) -> DeviceKeys:
        """The device keys of the plain states."""
        addresses, label_of = self._addresses[plain], self._label_of[plain]
        common = np.array([label or b"" for label in self._laid_out], f"S{LABEL_BYTES}")
        labels = common[label_of].view((np.uint8, LABEL_BYTES))
        labels[:, LABEL_OWNER] = addresses.astype(">u8").view((np.uint8, 8))
        return DeviceKeys(
            [self._labels[label][2] for label in label_of.tolist()],
            labels.view(f"V{LABEL_BYTES}").ravel().tolist(),
            list(compress(self._request.device_keys, plain.tolist())),
            kek_expansions(ca_system_id, addresses, self._epochs[plain]),
        )

    def emms(
        self, plain: NDArray[np.bool_], keks: Sequence[bytes], records: Sequence[bytes | None]
    ) -> EmmColumns:
        """The EMMs of plain states. `records`: of each grant, with an end that is not looked at."""
        addresses, epochs, numbers = (
            column[plain].astype(np.int64)
            for column in (self._addresses, self._epochs, self._numbers)
        )
        entitled = np.repeat(plain, self._counts)
        later = self._starts_at > self._request.utc
        payloads = state_payloads(
            self._request.utc,
            self._active[plain].tolist(),
            self._records(TLV_IN_FORCE, plain, entitled & ~later, records),
            self._records(TLV_LATER, plain, entitled & later, records),
        )
        kinds = np.full(len(keks), Kind.STATE)
        return EmmColumns(keks, addresses, kinds, epochs, numbers, payloads)

    def _records(
        self,
        tlv_type: int,
        plain: NDArray[np.bool_],
        wanted: NDArray[np.bool_],
        records: Sequence[bytes | None],
    ) -> tuple[list[int], NDArray[np.void]]:
        """How many of the wanted entitlements each plain state has, and their records."""
        ends = np.cumsum(self._counts)
        before = np.concatenate(([0], np.cumsum(wanted)))
        counts = before[ends] - before[ends - self._counts]
        common = np.array([record or b"" for record in records], RECORD[TLV_IN_FORCE].str)
        common = common[self._grant_of[wanted]].view(RECORD[TLV_IN_FORCE])
        found = np.empty(len(common), RECORD[tlv_type])
        found["head"], found["key"] = common["head"], common["key"]
        found["ends_at"] = np.minimum(self._ends_at[wanted], OPEN_END)
        if tlv_type == TLV_LATER:
            found["starts_at"] = self._starts_at[wanted]
        return counts[plain].tolist(), found

    def item(self, place: int) -> pb.SealItem:
        """A state as `Seal` takes it; ValueError for an index that points at nothing."""
        request = self._request
        address, label = request.addresses[place], request.device_key_labels[place]
        if label >= len(self._labels):
            raise ValueError(f"device key label {label} is not in the call")
        first_epoch, last_epoch, master_id = self._labels[label]
        end = int(self._counts[: place + 1].sum())
        state = pb.State(
            active=request.active[place],
            utc=request.utc,
            entitlements=map(self._entitlement, range(end - request.entitlements[place], end)),
        )
        return pb.SealItem(
            address=address,
            epoch=request.epochs[place],
            number=request.numbers[place],
            device_key=pb.SealedKey(
                purpose=pb.SealedKey.DEVICE,
                owner=address,
                first_epoch=first_epoch,
                last_epoch=last_epoch,
                master_id=master_id,
                blob=request.device_keys[place],
            ),
            state=state,
        )

    def _entitlement(self, place: int) -> pb.Entitlement:
        request = self._request
        index = request.entitlement_grants[place]
        if index >= len(request.grants):
            raise ValueError(f"grant {index} is not in the call")
        grant = request.grants[index]
        return pb.Entitlement(
            product_id=grant.product_id,
            epoch=grant.epoch,
            starts_at=request.entitlement_starts_at[place],
            ends_at=request.entitlement_ends_at[place],
            key=grant.key,
        )


def _laid_out(common: _Common) -> bytes | None:
    """The label of a device key that has no owner yet; None if it cannot be laid out."""
    try:
        return KeyLabel(Purpose.DEVICE, 0, *common).to_bytes()
    except (OverflowError, ValueError):
        return None
