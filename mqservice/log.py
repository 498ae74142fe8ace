"""Logging: fixed event phrases with fields, readable on a terminal, JSON lines otherwise. Never a body or a secret.

Set up once by the process before anything else starts; every module takes its logger from structlog.
"""

import logging
import sys

import structlog
from structlog.typing import Processor

from mqservice.config import LogConfig


def set_up(config: LogConfig) -> None:
    """Send everything at or above the level to standard error, in the configured format."""
    console = config.format == "console" or (config.format == "auto" and sys.stderr.isatty())
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(pad_event_to=0) if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, config.level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
