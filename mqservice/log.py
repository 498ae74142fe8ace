"""Logging: fixed event phrases with fields, readable on a terminal, JSON lines otherwise. Never a body or a secret.

Every module takes its logger from structlog. `mqservice serve` calls `set_up` before anything else starts. In another
program the service calls `stand_aside`: our lines go to the logger `mqservice` of the standard library, which shows
warnings on standard error unless the program says otherwise; where that has configured structlog, its own
configuration holds.

Lines that a handler writes, over structlog or `logging`, say which message they are about.
"""

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import structlog
from structlog.processors import CallsiteParameter, CallsiteParameterAdder
from structlog.typing import EventDict, Processor, WrappedLogger

from mqservice.config import LogConfig
from mqservice.tracing import QUEUE, RUNNING, current

Level = Literal["debug", "info", "warning", "error"]

LOGGER: Final = logging.getLogger("mqservice")
"""Its level is the one in force, whoever sets it."""

_FOLLOWING: Final = {LOGGER}
"""The loggers whose level changes with it."""

_PACKAGE: Final = str(Path(__file__).parent) + "/"
_NUMBERS: Final = {"debug": 10, "info": 20, "warning": 30, "warn": 30, "error": 40, "exception": 40, "critical": 50}
_find_caller: Final = CallsiteParameterAdder({CallsiteParameter.PATHNAME}, [__name__])


class _Stderr:
    """Standard error, which may be gone: a terminal that was closed must not keep the service from its drain."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def set_up(config: LogConfig) -> None:
    """Send everything at or above the level to standard error, in the configured format."""
    terminal = sys.stderr.isatty()
    console = config.format == "console" or (config.format == "auto" and terminal)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        about_message,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
    ]
    rendered: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    if console:  # with a plain traceback: a rich one would show the variables of every frame
        plain = structlog.dev.plain_traceback
        rendered = [structlog.dev.ConsoleRenderer(pad_event_to=0, colors=terminal, exception_formatter=plain)]
    structlog.configure(
        processors=[_drop_below, *shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(_Stderr()),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    _set_up_stdlib(shared, rendered)
    set_level(config.level)


def stand_aside() -> None:
    """Print nothing on our own in a program that has not configured structlog: its default is standard output.

    What the program itself logs over structlog stays as it is.
    """
    if not structlog.is_configured():
        structlog.configure(processors=[_hand_over, *structlog.get_config()["processors"]])


def set_level(level: Level) -> None:
    """Change the level from now on."""
    for logger in _FOLLOWING:
        logger.setLevel(level.upper())


def level() -> Level:
    """Return the level in force; the nearest of ours when the program has set another."""
    number = LOGGER.getEffectiveLevel()
    if number <= logging.DEBUG:
        return "debug"
    return "info" if number <= logging.INFO else "warning" if number <= logging.WARNING else "error"


def debugging() -> bool:
    """Whether lines of level debug are written: asked before many are put together."""
    return LOGGER.isEnabledFor(logging.DEBUG)


def change_level(level: Level) -> None:
    """Change the level, and say so in one line, whatever it was and is."""
    LOGGER.setLevel(logging.INFO)
    structlog.get_logger().info("log level set", level=level)
    set_level(level)


def about_message(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add queue, id, attempt and trace of the message whose handler writes the line, unless it names them itself.

    A processor of structlog, for programs that have a configuration of their own.
    """
    claimed = RUNNING.get()
    if claimed is not None:
        event.setdefault("queue", QUEUE.get())
        event.setdefault("id", claimed.receipt.id)
        event.setdefault("attempt", claimed.attempts + 1)
    if (trace := current()) is not None:
        event.setdefault("trace_id", trace.trace_id)
        event.setdefault("span_id", trace.span_id)
    return event


def _drop_below(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if not LOGGER.isEnabledFor(_NUMBERS.get(method, logging.CRITICAL)):
        raise structlog.DropEvent
    return event


def _hand_over(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Let the standard library have our lines; leave those of others alone."""
    number = _NUMBERS.get(method, logging.CRITICAL)
    path = _find_caller(logger, method, {})[CallsiteParameter.PATHNAME.value]
    if not path.startswith(_PACKAGE):
        return event
    if LOGGER.isEnabledFor(number):
        exc_info: Any = event.pop("exc_info", None)
        phrase = event.pop("event")
        LOGGER.log(number, "%s", " ".join([phrase, *(f"{k}={v!r}" for k, v in event.items())]), exc_info=exc_info)
    raise structlog.DropEvent


def _set_up_stdlib(shared: list[Processor], rendered: list[Processor]) -> None:
    """Let what libraries and handlers log over `logging` look as our own lines, unless the application sees to it."""
    root = logging.getLogger()
    if root.handlers and root not in _FOLLOWING:
        return
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    root.handlers[:] = [handler]
    _FOLLOWING.add(root)
