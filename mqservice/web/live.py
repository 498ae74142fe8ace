"""The live numbers: one reading a second for all who look at this process, none while nobody does."""

import asyncio

import structlog
from aiohttp import web
from msgspec import UNSET

from mqservice.errors import MqError
from mqservice.events import encode
from mqservice.message import JSON
from mqservice.numbers import Outage
from mqservice.web.answers import Processes, answer
from mqservice.web.context import CONTEXT, Context
from mqservice.web.parameters import StreamQuery
from mqservice.web.sse import STREAMS, Feed

log = structlog.get_logger()

EVERY_S = 1.0
_READ_S = 1.0
"""A Redis that takes longer counts as away, so that those who look are told in time."""


class Live:
    """Reads the numbers while somebody looks, and hands them to all."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._feeds: set[Feed] = set()
        self._latest = b""
        self._reader: asyncio.Task[None] | None = None

    def join(self, feed: Feed) -> None:
        """Let a client have the numbers: the latest at once, then each second's."""
        self._feeds.add(feed)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._supervise(), name="live numbers")
        elif self._latest:
            feed.put(self._latest)

    def leave(self, feed: Feed) -> None:
        """Let it have no more. The reading ends within a second of the last one's leave."""
        self._feeds.discard(feed)

    async def aclose(self, _app: web.Application) -> None:
        """End the reading."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def _supervise(self) -> None:
        try:
            await self._run()
        except Exception as error:
            log.error("live numbers failed", exc_info=error)
            for feed in tuple(self._feeds):
                feed.abort()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        answered_at = due = loop.time()
        self._latest = b""
        while self._feeds:
            try:
                async with asyncio.timeout(_READ_S):
                    numbers = await self._context.numbers()
                answered_at = loop.time()
                self._latest = encode("numbers", JSON.encode(numbers))
            except (MqError, TimeoutError) as error:
                away_s = round(loop.time() - answered_at, 1)
                text = str(error) or f"Redis did not answer within {_READ_S:g} s"
                self._latest = encode("outage", JSON.encode(Outage(away_s, text)))
            for feed in tuple(self._feeds):
                feed.put(self._latest)
            due = max(due + EVERY_S, loop.time())
            await asyncio.sleep(due - loop.time())


LIVE: web.AppKey[Live] = web.AppKey("live", Live)


async def events(request: web.Request, query: StreamQuery) -> web.StreamResponse:
    """Stream the numbers of all queues, processes and channels, once a second: server-sent events.

    `event: numbers` has the JSON of type Numbers. While Redis is away there is `event: outage` instead, of type
    Outage, and the stream goes on.
    """
    feed, live = Feed(None if query.limit is UNSET else query.limit), request.app[LIVE]
    live.join(feed)
    try:
        return await request.app[STREAMS].serve(request, feed)
    finally:
        live.leave(feed)


async def processes(request: web.Request) -> web.Response:
    """List the processes that run, at any machine: loop lag, round trip to Redis, memory, what they work on."""
    return answer(Processes(await request.app[CONTEXT].processes.all()))
