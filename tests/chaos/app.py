"""The application that chaos tests run: `mqservice serve --app tests.chaos.app:service`, or `make` in the test.

CHAOS_LEDGER names the ledger's file. CHAOS_CRASH names a point at which the process is killed; see `crashing`.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from mqservice import Message, Reject, Retry, Service
from mqservice.config import Config
from tests.chaos.crashing import reach
from tests.chaos.ledger import Notes


class Work(msgspec.Struct):
    """What a message asks of its handler."""

    n: int
    """Which message it is."""
    ms: float = 1.0
    """How long the handler takes."""
    fails: int = 0
    """So many attempts fail first."""
    retry_s: float = 0.1
    """When a failed one is tried again."""
    reject: bool = False
    """It is dead at once."""
    blocks: bool = False
    """The handler keeps the event loop while it takes its time."""


def make(ledger: Path, config: Config | None = None, subscriber: Callable[[int], object] | None = None) -> Service:
    """Return a service whose handler of `work` notes its runs in the ledger; `subscriber` gets the channel `news`."""
    service = Service(config)
    notes = Notes(ledger)

    @service.handler("work")
    async def work(body: Work | int, message: Message) -> dict[str, float]:
        if isinstance(body, int):
            body = Work(body)
        notes.write("start", body.n)
        reach("in handler")
        if body.blocks:
            time.sleep(body.ms / 1000)
        else:
            await asyncio.sleep(body.ms / 1000)
        if message.attempt <= body.fails:
            raise Retry(body.retry_s)
        if body.reject:
            raise Reject("as it was told")
        notes.write("end", body.n)
        return {"n": body.n, "wall_clock_s": time.time()}

    if subscriber is not None:

        @service.subscriber("news")
        async def news(body: int) -> None:
            subscriber(body)

    return service


if "CHAOS_LEDGER" in os.environ:
    service = make(Path(os.environ["CHAOS_LEDGER"]))
