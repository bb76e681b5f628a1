"""The sample day is what it says it is."""

import io
import json
from collections import Counter
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from runpy import run_path

from demo.ledger import Ledger
from demo.sms import absolute

DAY = Path("samples/day.jsonl").read_text(encoding="utf-8")


def test_the_day_is_the_one_its_script_writes() -> None:
    """Nobody edited the one without the other."""
    out = io.StringIO()
    with redirect_stdout(out):
        run_path("samples/make_day.py", run_name="__main__")
    assert out.getvalue() == DAY


def test_the_day_has_orders_of_every_kind() -> None:
    """At least 2,000 orders; every call; refusals of every reason an SMS may cause."""
    lines = [json.loads(line) for line in DAY.splitlines()]
    assert len(lines) >= 2000
    assert Counter(line["op"] for line in lines).keys() == {
        "adddevice",
        "removedevice",
        "addentitlement",
        "removeentitlement",
        "generateosm",
        "removeosm",
    }
    assert len({line["expect"] for line in lines}) == 12


def test_the_ledger_ends_windows_at_their_end() -> None:
    """A start that is past is null; a product whose window is over is gone."""
    ledger = Ledger()
    at = {"accepted_at": "2026-05-01T12:00:00.5Z"}
    ledger.accepted("adddevice", {"device_id": "7"}, at)
    for product, end in ((1, "2026-05-01T12:00:10Z"), (2, None)):
        body = {"device_id": "7", "product_id": product}
        ledger.accepted("addentitlement", body | ({"ends_at": end} if end else {}), at)
    box = ledger.as_of(datetime(2026, 5, 1, 12, 0, 10, tzinfo=UTC))["7"]
    assert box["products"] == {"2": {"starts_at": None, "ends_at": None}}


def test_relative_times_become_absolute() -> None:
    """A sample says "+15s" for fifteen seconds from the sending."""
    now = datetime(2026, 5, 1, tzinfo=UTC)
    assert absolute({"ends_at": "+15s"}, now)["ends_at"] == "2026-05-01T00:00:15+00:00"
