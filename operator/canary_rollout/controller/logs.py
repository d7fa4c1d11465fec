"""Structured logs: one JSON object per line, or colours on a terminal; never a secret.

kopf, aiohttp and kubernetes log through the standard library; their records take the same way out.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import Processor

Format = Literal["auto", "json", "console"]

_SECRET_KEYS: Final = re.compile(
    r"authorization|cookie|token|password|passwd|secret|credential|api_?key", re.IGNORECASE
)
_SECRET_TEXT: Final = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_URL_LOGIN: Final = re.compile(r"(\w+://)[^/\s:@]+:[^/\s@]+@")
HIDDEN: Final = "(hidden)"

_QUIETER: Final = {
    # One INFO line per watch event would be most of the log.
    "kopf": logging.WARNING,
    # It warns that signals are ours, each time it starts: that is why it runs on a thread.
    "kopf._core.reactor.running": logging.ERROR,
    "kubernetes": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "asyncio": logging.WARNING,
    "urllib3": logging.WARNING,
}


def hide_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace what may be a secret: by the name of the field, and credentials inside texts."""
    for key, value in event.items():
        if _SECRET_KEYS.search(key):
            event[key] = HIDDEN
        elif isinstance(value, str):
            event[key] = _URL_LOGIN.sub(rf"\1{HIDDEN}@", _SECRET_TEXT.sub(rf"\1 {HIDDEN}", value))
    return event


def configure(*, level: str = "info", fmt: Format = "auto", stream: TextIO | None = None) -> None:
    """Set up logging for the process.

    Args:
        level: debug, info, warning or error.
        fmt: json, console, or auto (console where ``stream`` is a terminal).
        stream: where to; stderr by default.
    """
    out = stream or sys.stderr
    console = fmt == "console" or (fmt == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    # Exceptions become text before secrets are looked for: tracebacks quote headers and URLs too.
    last: list[Processor] = [structlog.processors.format_exc_info, hide_secrets]
    if console:
        last.append(structlog.dev.ConsoleRenderer(colors=out.isatty()))
    else:
        last.append(structlog.processors.JSONRenderer(default=str))
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in _QUIETER.items():
        logging.getLogger(name).setLevel(max(least, root.level))
