"""Structured logs, for people on a terminal and for machines in files.

Every process calls `configure` once. Its own records and those of libraries (uvicorn, the Kafka client) then take the
same way: to stderr, readable on a terminal and JSON lines elsewhere, and to a rotating JSON file of the process,
`<data_dir>/logs/<process>.log`. Two processes never share a file, because rotation would lose lines.

Bind what a record is about: `log.bind(agent_id=..., action=..., workflow_id=...)`, or
`structlog.contextvars.bound_contextvars(...)` for a stretch of code. A line costs tens of microseconds: log per batch
or per event worth a person's time, never per signal.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from signalbox.config import Settings

_SECRET_WORDS = ("password", "secret", "token", "authorization", "api_key", "apikey", "credential", "key.pem")
_MASK = "**********"
#: A shorter secret would blank out innocent words.
_SHORTEST_SECRET = 6
#: Deeper values are left out of the search for secret names.
_MASK_DEPTH = 6
#: These say at level INFO what nobody asked for.
_CHATTY = ("asyncio", "httpx2", "httpcore2", "uvicorn.error", "uvicorn.access")


def configure(settings: Settings, *, process: str) -> None:
    """Send this process's logs to where the settings say, replacing what an earlier call arranged.

    Args:
        settings: level, console, file and rotation; its secrets are blanked out of every line.
        process: names the log file and marks every record, such as `agents-0`.
    """
    level = settings.log.level.upper()
    secrets = _secret_values(settings)
    handlers: list[logging.Handler] = []
    if settings.log.console:
        console = logging.StreamHandler(sys.stderr)
        console.setFormatter(_formatter(_console_renderer(), process, secrets))
        handlers.append(console)
    if settings.log.file:
        folder = settings.node.data_dir / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        file = RotatingFileHandler(
            folder / f"{process}.log",
            maxBytes=settings.log.file_bytes,
            backupCount=settings.log.file_count,
            encoding="utf-8",
        )
        file.setFormatter(_formatter(_json_renderer(), process, secrets))
        handlers.append(file)
    _install(handlers or [logging.NullHandler()], level)
    structlog.configure(
        processors=_bound_processors(),
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that takes key-value pairs: `log.info("worker restarted", index=2)`. May be made before `configure`."""
    logger = structlog.wrap_logger(
        logging.getLogger(name), processors=_bound_processors(), wrapper_class=structlog.stdlib.BoundLogger
    )
    return cast("structlog.stdlib.BoundLogger", logger)


def _install(handlers: Sequence[logging.Handler], level: str) -> None:
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, _MaskingFormatter) or isinstance(old, logging.NullHandler):
            root.removeHandler(old)
            old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel("WARNING" if level != "DEBUG" else "INFO")
    logging.captureWarnings(capture=True)


def _bound_processors() -> list[Processor]:
    return [
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]


def _formatter(renderers: Sequence[Processor], process: str, secrets: Sequence[str]) -> logging.Formatter:
    def stamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["timestamp"] = datetime.fromtimestamp(event["_record"].created, UTC).isoformat(timespec="milliseconds")
        event.setdefault("process", process)
        return event

    return _MaskingFormatter(
        secrets,
        foreign_pre_chain=[structlog.contextvars.merge_contextvars],
        processors=[
            stamp,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _mask_named,
            *renderers,
        ],
    )


def _console_renderer() -> list[Processor]:
    if not sys.stderr.isatty():
        return _json_renderer()
    colors = not os.environ.get("NO_COLOR")
    # The plain traceback: the rich one prints local variables, and with them whatever secret they hold.
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]


def _json_renderer() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]


class _MaskingFormatter(structlog.stdlib.ProcessorFormatter):
    """Blanks out the settings' secrets in the finished line, wherever they came from, a traceback included."""

    def __init__(
        self, secrets: Sequence[str], *, foreign_pre_chain: Sequence[Processor], processors: Sequence[Processor]
    ) -> None:
        super().__init__(foreign_pre_chain=foreign_pre_chain, processors=processors)
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for secret in self._secrets:
            line = line.replace(secret, _MASK)
        return line


def _secret_values(settings: Settings) -> list[str]:
    """The settings' secrets as they may stand in a line: as they are, as Python shows them, as JSON writes either."""
    values = [str(value) for name, value in settings.kafka.client.items() if _is_secret(name)]
    if settings.http.token is not None:
        values.append(settings.http.token.get_secret_value())
    shown = {form for value in values for form in (value, repr(value)[1:-1])}
    spelled = shown | {json.dumps(form)[1:-1] for form in shown}
    return sorted((form for form in spelled if len(form) >= _SHORTEST_SECRET), key=len, reverse=True)


def _mask_named(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blank out values whose name says that they are secret."""
    return {name: _masked(name, value, _MASK_DEPTH) for name, value in event.items()}


def _masked(name: str, value: object, depth: int) -> object:
    if _is_secret(name):
        return _MASK
    if isinstance(value, Mapping) and depth:
        return {inner: _masked(str(inner), held, depth - 1) for inner, held in value.items()}
    return value


def _is_secret(name: str) -> bool:
    lowered = name.lower()
    return any(word in lowered for word in _SECRET_WORDS)
