"""A database with requests and key events, and an auditor that follows it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine

from portcullis.auditor.auditor import Auditor
from portcullis.auditor.chainlog import Keeping
from portcullis.auditor.comparison import DatabaseView
from portcullis.auditor.heads import Signer, load_public
from portcullis.auditor.report import Report
from portcullis.auditor.verify import Anchors, Verifier
from portcullis.store.chains import note_key_event
from portcullis.store.orders import NewRequest, apply_requests

WRITER = "gateway@host:8080"
CHAIN = f"{WRITER}/0"


def order(engine: Engine, *numbers: int, writer: str = WRITER) -> None:
    """Commit a group of requests, by product number."""
    apply_requests(
        engine,
        [
            NewRequest("sms", f"t{n}", "putproduct", {"name": f"näme {n}"}, product_id=n)
            for n in numbers
        ],
        writer,
    )


def keys_changed(engine: Engine, *products: int) -> None:
    """Note key events."""
    for product_id in products:
        note_key_event(engine, "chain_made", product_id=product_id)


def auditor(engine: Engine, home: Path, keeping: Keeping | None = None) -> Auditor:
    """An auditor of this home."""
    return Auditor(
        engine, home / "audit", Signer.load(home / "key.pem"), keeping=keeping or Keeping()
    )


def verify(
    engine: Engine | None,
    home: Path,
    *,
    anchors: Sequence[Path] = (),
    now: datetime | None = None,
) -> Report:
    """What a verification of this home says."""
    report, moment = Report(), now or datetime.now(UTC)
    return Verifier(
        home / "audit",
        load_public(home / "audit" / "public-key.pem"),
        Anchors.read(anchors),
        report,
        database=None
        if engine is None
        else DatabaseView(engine, report, timedelta(days=731), moment),
        keep=timedelta(days=1100),
        now=moment,
    ).run()
