"""The SMS's list of active devices and products beside ours, both ways (docs/evidence.md)."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from portcullis.runtime.errors import PortcullisError

Rights = Mapping[int, tuple[int, ...]]
"""device_id → products, ascending."""


class SmsFileError(PortcullisError):
    """The SMS's list cannot be read: says which entry, and what is expected."""

    exit_code = 2


@dataclass(frozen=True)
class Difference:
    """One side has it and the other does not. product_id None: the device itself."""

    device_id: int
    product_id: int | None
    only_in: Literal["sms", "cas"]


@dataclass
class Tally:
    """Devices of either side, and those that are not the same on both."""

    devices: int = 0
    mismatched: int = 0

    @property
    def rate(self) -> float:
        """Mismatched devices among all, 0 to 1."""
        return self.mismatched / self.devices if self.devices else 0.0


def read_sms_file(path: Path) -> Rights:
    """Read CSV `device_id,product_id`, or JSON `[{"device_id": "1", "products": [1]}]`.

    Raises SmsFileError.
    """
    rights: dict[int, set[int]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as opened:
            is_json = opened.read(1) == "["
            opened.seek(0)
            pairs = _json_pairs(json.load(opened)) if is_json else _csv_pairs(opened)
            for device_id, product_id in pairs:
                held = rights.setdefault(device_id, set())
                if product_id is not None:
                    held.add(product_id)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SmsFileError(f"{path}: cannot be read: {error}") from error
    # A million devices hold a few packages: equal ones are kept once.
    packages: dict[tuple[int, ...], tuple[int, ...]] = {}
    ordered = ((device_id, tuple(sorted(held))) for device_id, held in rights.items())
    return {device_id: packages.setdefault(held, held) for device_id, held in ordered}


def _csv_pairs(lines: Iterable[str]) -> Iterator[tuple[int, int | None]]:
    for number, row in enumerate(csv.reader(lines), start=1):
        if not row or (number == 1 and row == ["device_id", "product_id"]):
            continue
        if len(row) != 2:  # noqa: PLR2004 (the two of the header)
            raise SmsFileError(f"line {number}: expected device_id,product_id")
        device_id = _number(row[0], f"line {number}: device_id")
        yield device_id, _number(row[1], f"line {number}: product_id") if row[1] else None


def _json_pairs(found: Any) -> Iterator[tuple[int, int | None]]:  # noqa: ANN401 (whatever JSON holds)
    for number, entry in enumerate(found, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("products"), list):
            raise SmsFileError(f"entry {number}: expected device_id and products")
        device_id = _number(entry.get("device_id"), f"entry {number}: device_id")
        yield device_id, None
        for product_id in entry["products"]:
            yield device_id, _number(product_id, f"entry {number}: products")


def _number(value: object, what: str) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal()):
        raise SmsFileError(f"{what}: expected a whole number, got {value!r}")
    return int(text)


def reconcile(
    sms: Rights, ours: Iterable[tuple[int, tuple[int, ...]]], tally: Tally
) -> Iterator[Difference]:
    """Every difference; the tally is complete when the last one has been taken."""
    unseen = set(sms)
    for device_id, held in ours:
        tally.devices += 1
        unseen.discard(device_id)
        theirs = sms.get(device_id)
        if theirs == held:
            continue
        tally.mismatched += 1
        if theirs is None:
            yield Difference(device_id, None, "cas")
        yield from (Difference(device_id, one, "cas") for one in held if one not in (theirs or ()))
        yield from (Difference(device_id, one, "sms") for one in theirs or () if one not in held)
    for device_id in sorted(unseen):
        tally.devices += 1
        tally.mismatched += 1
        yield Difference(device_id, None, "sms")
        yield from (Difference(device_id, one, "sms") for one in sms[device_id])
