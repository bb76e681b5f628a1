"""The final check: what the SMS was promised against what the database and the boxes hold."""

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, func, select

from portcullis.store.schema import messages, requests, transactions
from tests.faults.boxes import Boxes
from tests.faults.sms import ledger_of, read_ledger

_COMPARED = ("status", "products", "messages")
_LOOK_S = 0.5


@dataclass(frozen=True)
class Kept:
    """What became of the orders that were answered with 2xx.

    Attributes:
        orders: how many had their 2xx.
        lost: those that `requests` or `transactions` do not hold as they were answered.
        doubled: what is there more often than it was ordered.
    """

    orders: int
    lost: list[str]
    doubled: list[str]


def kept(engine: Engine, client_id: str, ledger: Path) -> Kept:
    """Hold every 2xx of the ledger against the tables, once no order is under way."""
    lines = list(read_ledger(ledger))
    promised = {line["body"]["transaction_id"]: line["answer"]["request_id"] for line in lines}
    texts = sum(line["op"] == "generateosm" for line in lines)
    accepted = select(requests.c.transaction_id, requests.c.request_id).where(
        requests.c.client_id == client_id,
        requests.c.outcome == "accepted",
        requests.c.transaction_id.is_not(None),
    )
    known = select(transactions.c.transaction_id, transactions.c.request_id).where(
        transactions.c.client_id == client_id
    )
    with engine.connect() as connection:
        taken = [(row[0], row[1]) for row in connection.execute(accepted)]
        remembered = {(row[0], row[1]) for row in connection.execute(known)}
        kept_texts = connection.execute(select(func.count()).select_from(messages)).scalar_one()
    there = remembered & set(taken)
    lost = [pair[0] for pair in promised.items() if pair not in there]
    doubled = [name for name, count in Counter(pair[0] for pair in taken).items() if count > 1]
    doubled += [name for name, _ in taken if name not in promised]
    if kept_texts != texts:
        doubled.append(f"{kept_texts} messages kept of {texts} ordered")
    return Kept(len(promised), lost, doubled)


def wrong_boxes(boxes: Boxes, ledger: Path, timeout_s: float) -> dict[str, str]:
    """Wait until every box on air holds what was ordered; those that differ still, and in what."""
    ordered = ledger_of(ledger)
    end = time.monotonic() + timeout_s
    while True:
        moment = datetime.now(UTC).replace(microsecond=0)
        want = ordered.as_of(moment)
        hold = boxes.hold(int(moment.timestamp()))
        wrong = {
            device_id: f"ordered {want[device_id]}, held {hold[device_id]}"
            for device_id in ordered.boxes.keys() & hold.keys()
            if any(want[device_id][name] != hold[device_id][name] for name in _COMPARED)
        }
        if not wrong or time.monotonic() > end:
            return wrong
        time.sleep(_LOOK_S)
