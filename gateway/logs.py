"""Structured logs on stderr: JSON lines for machines, coloured lines for people. No secret reaches them."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET_NAMES = re.compile(r"password|secret|token|ticket|authorization|cookie|credential", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)[^\s\"']+@")
_SECRETS = re.compile(r"(ticket=|bearer\s+)[^&\s\"']+", re.IGNORECASE)
MAX_DEPTH = 8
REDACTED = "[redacted]"


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The last line of defence: by name of the field, and whatever looks like a credential inside text."""
    for name, value in event.items():
        if name.startswith("_"):  # structlog's own, removed before anything is written
            continue
        event[name] = REDACTED if _SECRET_NAMES.search(name) else _redacted(value, MAX_DEPTH)
    return event


def _redacted(value: Any, depth: int) -> Any:
    if isinstance(value, bool | int | float) or value is None:
        return value
    if not depth and isinstance(value, dict | list | tuple):
        return "…"
    if isinstance(value, dict):
        return {
            str(name): REDACTED if _SECRET_NAMES.search(str(name)) else _redacted(inner, depth - 1)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redacted(inner, depth - 1) for inner in value]
    text = value if isinstance(value, str) else repr(value)
    return _SECRETS.sub(rf"\1{REDACTED}", _USER_INFO.sub(f"{REDACTED}@", text))


def configure_logs(log_format: str, level: str, process: str) -> None:
    """Once per process, before anything logs. The standard library's loggers go the same way."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if log_format == "console"
        else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for chatty in ("alembic", "casbin", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
