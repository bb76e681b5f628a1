"""Wiring of the auditor."""

import asyncio
import time
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from portcullis.auditor.auditor import Auditor
from portcullis.auditor.chainlog import Keeping
from portcullis.auditor.config import AuditorConfig
from portcullis.auditor.heads import Signer
from portcullis.runtime.config import ConfigSource, DatabaseConfig
from portcullis.runtime.logging import get_logger
from portcullis.runtime.service import Service
from portcullis.store.database import engine_for, reason_of

POLL_S = 1.0
_ANSWER_S = 4.0
_LAST_S = 8.0

log = get_logger("portcullis.auditor")


async def main(source: ConfigSource) -> None:
    """Follow until told to stop; then sign and anchor what there is. Raises ConfigError."""
    config = AuditorConfig.of(source)
    database = source.section("database", DatabaseConfig)
    engine = engine_for(database.full_url(), pool_size=1, answer_s=_ANSWER_S)
    auditor = Auditor(
        engine,
        Path(config.dir),
        Signer.load(Path(config.key_file)),
        config.parsed_anchors(),
        keeping=Keeping(config.file_bytes, float(config.keep)),
    )
    async with Service("auditor", config.monitor) as service:
        service.checks["record"] = lambda: auditor.trouble.get("log")
        service.notices["record"] = lambda: (
            "; ".join(text for name, text in auditor.trouble.items() if name != "log") or None
        )
        sign_at = anchor_at = 0.0
        while await service.sleep(POLL_S):
            now = time.monotonic()
            signs, anchors = now >= sign_at, now >= anchor_at
            sign_at = now + float(config.sign_every) if signs else sign_at
            anchor_at = now + float(config.anchor_every) if anchors else anchor_at
            await asyncio.to_thread(_step, auditor, signs=signs, anchors=anchors)
        last = asyncio.to_thread(_step, auditor, signs=True, anchors=True)
        await service.finish("the last records", last, _LAST_S)
    auditor.close()
    engine.dispose()


def _step(auditor: Auditor, *, signs: bool, anchors: bool) -> None:
    try:
        auditor.follow()
        auditor.trouble.pop("log", None)
        if signs:
            auditor.sign()
        if anchors:
            auditor.anchor()
    except (SQLAlchemyError, OSError) as error:
        auditor.trouble["log"] = f"the evidence is behind: {reason_of(error)}"
        log.warning("the evidence is behind", error=reason_of(error))
