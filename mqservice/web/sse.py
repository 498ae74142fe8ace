"""Server-sent events: how one is written, what is on its way to one client, and the end of all at once.

An event is encoded once, however many clients get it. A client that reads slower than events come has a bounded
buffer; beyond it the client is disconnected, and comes back by itself (a browser does so, with `Last-Event-ID`).
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp_sse import EventSourceResponse

log = structlog.get_logger()

HEARTBEAT_S: Final = 15.0
"""A comment goes out so often: proxies cut off what is silent, and a client that is gone is found out."""

SEND_S: Final = 30.0
"""What a client has not acknowledged by then ends its connection."""

LONGEST_S: Final = 24 * 3600.0
"""A stream ends after so long, and its client comes back: no forgotten one lives for ever."""

BUFFER_EVENTS: Final = 1000
BUFFER_BYTES: Final = 1 << 20

MEDIA_TYPE: Final = "text/event-stream"
_RETRY: Final = b"retry: 2000\n\n"


class Feed:
    """The events on their way to one client; at most `limit` of them, then it ends (None: no end)."""

    def __init__(self, limit: int | None = None) -> None:
        self._left = limit
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._wake = asyncio.Event()
        self._ended = False
        self._abort: Callable[[], None] | None = None
        self._drained = asyncio.Event()
        self._drained.set()
        self.overflowed = False
        self.writing = False
        """Seen from elsewhere: the client's connection takes no more at present."""

    @property
    def ended(self) -> bool:
        """Nothing is put in any more."""
        return self._ended

    def put(self, encoded: bytes) -> None:
        """Hand an event over. Ends the feed when it was the last of the limit, or one too many for the buffer."""
        if self._ended:
            return
        if len(self._waiting) >= BUFFER_EVENTS or (self._waiting and self._bytes + len(encoded) > BUFFER_BYTES):
            self.overflowed = True
            self.abort()
            return
        self._waiting.append(encoded)
        self._bytes += len(encoded)
        if self._left is not None:
            self._left -= 1
            self._ended = self._left <= 0
        self._wake.set()

    async def room(self) -> None:
        """Wait until the client has taken most of what was put in, so that reading on overflows nothing."""
        if len(self._waiting) >= BUFFER_EVENTS // 2 or self._bytes >= BUFFER_BYTES // 2:
            self._drained.clear()
            await self._drained.wait()

    def end(self) -> None:
        """Let the client have what was put in, then end. A client that takes nothing is cut off."""
        self._ended = True
        self._wake.set()
        if self.writing:
            self.abort()

    def abort(self) -> None:
        """Cut the client off."""
        self._ended = True
        self._waiting.clear()
        self._wake.set()
        if self._abort is not None:
            self._abort()

    async def send_to(self, response: web.StreamResponse, abort: Callable[[], None]) -> None:
        """Write what is put in, as it comes, until the end. Raises ConnectionResetError when the client has gone."""
        self._abort = abort
        while True:
            await self._wake.wait()
            self._wake.clear()
            if chunk := b"".join(self._waiting):
                self._waiting.clear()
                self._bytes = 0
                self.writing = True
                await response.write(chunk)
                self.writing = False
                self._drained.set()
            elif self._ended:
                return
            if self._ended:
                self._wake.set()


class Streams:
    """The open event streams of this process."""

    def __init__(self) -> None:
        self._feeds: set[Feed] = set()

    def __len__(self) -> int:
        return len(self._feeds)

    async def serve(
        self, request: web.Request, feed: Feed, produce: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> web.StreamResponse:
        """Answer a request with the events of a feed, until it ends or the client goes.

        `produce()` runs meanwhile; when it fails, that is logged and the client cut off, so that it comes back.
        """
        response = EventSourceResponse(sep="\n", ping_interval=HEARTBEAT_S, send_timeout=SEND_S)
        await response.prepare(request)
        self._feeds.add(feed)
        producer = asyncio.create_task(_produced(produce, feed), name="event stream") if produce is not None else None
        try:
            async with asyncio.timeout(LONGEST_S), response:
                await response.write(_RETRY)
                await feed.send_to(response, lambda: _abort(request))
        except (ConnectionResetError, TimeoutError):
            pass  # it has gone, or comes back
        finally:
            self._feeds.discard(feed)
            if producer is not None:
                producer.cancel()
                await asyncio.wait([producer])
        return response

    async def end_all(self, _app: web.Application) -> None:
        """End every stream, so that a stop waits for none."""
        for feed in tuple(self._feeds):
            feed.end()


STREAMS: web.AppKey[Streams] = web.AppKey("streams", Streams)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _produced(produce: Callable[[], Coroutine[Any, Any, None]], feed: Feed) -> None:
    try:
        await produce()
    except Exception as error:
        log.error("event stream failed", exc_info=error)
        feed.abort()
