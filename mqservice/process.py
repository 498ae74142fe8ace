"""One process that serves until it is told to stop: signals, start screen, exit.

Called by the command line. The first TERM or INT drains, a second one releases at once.
"""

import asyncio
import contextlib
import gc
import resource
import signal
import sys

import structlog

from mqservice.runtime import Parts
from mqservice.service import Service

log = structlog.get_logger()

_FILES = 65_536


async def serve(service: Service, parts: Parts, version: str) -> None:
    """Start, serve, drain. Raises MqError when the start fails or a part dies."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    _raise_file_limit()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
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
