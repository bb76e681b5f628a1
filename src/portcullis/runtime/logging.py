"""Structured logs: one JSON object a line on standard error."""

import logging
import sys

# structlog loads rich where it finds it: 4 MB for tracebacks in colour, which JSON has none of.
_modules: dict[str, object] = sys.modules  # type: ignore[assignment]  # None: not to be found
_modules.setdefault("rich", None)

import structlog  # noqa: E402 (rich is hidden from it)
from structlog.typing import EventDict, Processor  # noqa: E402

if _modules["rich"] is None:
    del _modules["rich"]

from portcullis.runtime.config import ConfigError, LogConfig  # noqa: E402
from portcullis.runtime.metrics import LOG_MESSAGES  # noqa: E402


def set_up_logging(service: str, config: LogConfig) -> None:
    """Make every logger of this process write JSON lines with time, level and service."""
    level = logging.getLevelNamesMapping().get(config.level.upper())
    if level is None:
        raise ConfigError(f"log.level: expected debug, info, warning or error: {config.level}")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.EventRenamer("msg"),
        lambda _logger, _method, event: {"service": service, **event},
    ]
    structlog.configure(
        processors=[*shared[:-2], structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared[:-2],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _count,
                structlog.processors.format_exc_info,
                *shared[-2:],
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn.access", "apscheduler", "alembic", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It warns of each turn that comes while a job is at work: twice a second in a re-key.
    logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)


def _count(_logger: object, _method: str, event: EventDict) -> EventDict:
    LOG_MESSAGES.labels(event["level"]).inc()
    return event


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger with key-value events."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger
