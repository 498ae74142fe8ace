"""Applications that tests start as real processes: `mqservice serve --app tests.apps:service`."""

import asyncio
import os
import sys

import redis.asyncio

from mqservice import Message, Service

service = Service()
_log: list[redis.asyncio.Redis] = []


async def note(key: str, value: str) -> None:
    """Append to a list in Redis, which outlives this process."""
    if not _log:
        _log.append(redis.asyncio.from_url(os.environ["MQSERVICE_REDIS__URL"]))
    await _log[0].rpush(key, value)


@service.handler("work")
async def work(body: int, message: Message) -> int:
    """Note the run, take a millisecond, note the end."""
    await note("started", f"{body}")
    await asyncio.sleep(0.001)
    await note("handled", f"{body} {os.getpid()}")
    return body


@service.handler("slow")
async def slow(seconds: float, message: Message) -> None:
    """Take as long as the body says."""
    await note("started", message.id)
    await asyncio.sleep(seconds)
    await note("handled", message.id)


@service.handler("fatal")
async def fatal(body: int) -> None:
    """Kill the process."""
    os._exit(9)


broken = Service()


@broken.handler("work")
async def never(body: int) -> None:
    """Is never called: the consumer dies first."""


if "tests.apps:broken" in " ".join(sys.argv):
    from mqservice.broker import Broker

    async def _no_claim(*_: object) -> None:
        raise RuntimeError("a fault of our own")

    Broker.claim = _no_claim  # type: ignore[method-assign,assignment]
