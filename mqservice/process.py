"""One process that serves until it is told to stop: signals, start screen, exit.

Called by the command line. The first TERM or INT drains, a second one releases at once; HUP reads the log level again.
"""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable

import structlog

from mqservice.errors import ConfigError
from mqservice.log import Level, change_level
from mqservice.runtime import Parts
from mqservice.service import Service

log = structlog.get_logger()

_FILES = 65_536


async def serve(service: Service, parts: Parts, version: str, configured: Callable[[], Level]) -> None:
    """Start, serve, drain. Raises MqError when the start fails or a part dies.

    `configured` reads the log level that the configuration has now, or raises ConfigError.
    """
    stop, hurry = asyncio.Event(), asyncio.Event()
    terminals = [number for number in range(3) if os.isatty(number)]

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    def on_hangup() -> None:
        if all(map(os.isatty, terminals)):
            _read_level(configured)
        else:  # nobody asks for a new level: our terminal was closed
            stop.set()

    _raise_file_limit()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    await service.start(parts)
    rest_the_collector()
    print(_screen(service.describe(), version), file=sys.stderr, flush=True)  # noqa: T201
    failed = asyncio.create_task(service.wait_failed(), name="watch")
    asked = asyncio.create_task(stop.wait(), name="signal")
    await asyncio.wait({failed, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if failed.done():
        await service.stop(hurry=hurry)
        failed.result()
    failed.cancel()
    log.info("draining", again="Ctrl-C again releases at once")
    await service.stop(hurry=hurry)
    log.info("stopped")


def _read_level(configured: Callable[[], Level]) -> None:
    try:
        change_level(configured())
    except ConfigError as error:
        log.error("configuration not read again", error=str(error))


def _raise_file_limit() -> None:
    """Let this process hold as many connections as the system allows it: shells and systemd begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS has a limit of its own below the one it names
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def rest_the_collector() -> None:
    """Let Python look for cyclic garbage less often: for a process that only serves.

    What the start made lives to the end, and nearly nothing that a message or request leaves behind is in a cycle. HTTP
    sends were 0.50 of a bare handler's rate before, 0.57 after (medians of eight rounds).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _screen(facts: dict[str, str], version: str) -> str:
    rows = [
        ("open", facts["url"] or "no HTTP"),
        *([("dashboard", f"{facts['url']}/dashboard")] if facts["url"] else []),
        ("redis", facts["redis"]),
        ("queues", facts["queues"] or "none consumed here"),
        ("channels", facts["channels"] or "none followed here"),
        ("stop", "Ctrl-C: running handlers finish, the rest is given back"),
    ]
    lines = [f"  mqservice {version}", *(f"  {name:<9} {text}" for name, text in rows)]
    return "\n" + "\n".join(lines) + "\n"
