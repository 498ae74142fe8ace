"""Channels: publish and subscribe over Redis.

Used by the subscriber and the web. One subscriber connection per process, however many follow. Pub/sub keeps nothing:
what is published while nobody listens, or while a connection is being renewed, is not seen.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import ResponseError

from mqservice.connections import Connections
from mqservice.errors import MqError, Unavailable
from mqservice.rates import Pace
from mqservice.retry import Backoff

log = structlog.get_logger()

Deliver = Callable[[str, str, bytes], None]
"""Called with the channel or pattern subscribed to, the channel published on, and the body. Must not block."""

PING_AFTER_S = 1.0
SILENT_S = 3.0
"""No byte for so long, in spite of pings: the connection is dead, whatever TCP believes."""


class Channels:
    """Publishes, and counts what it published. `key_of` tells the Redis channel of a name of ours."""

    def __init__(self, connections: Connections, key_of: Callable[[str], str] = str) -> None:
        self._connections, self._key_of = connections, key_of
        self._pace = Pace()

    async def publish(self, channel: str, body: bytes) -> int:
        """Publish to the channel; return how many connections received it. 1 round trip, not repeated."""
        key = self._key_of(channel)
        receivers: int = await self._connections.guard(lambda: self._connections.commands.publish(key, body))
        self._pace.count(channel)
        return receivers

    def per_s(self) -> dict[str, float]:
        """Return how many messages a second were published here lately, by channel."""
        return self._pace.per_s()


class Subscription:
    """Follows channels and patterns for as long as it runs, through every outage."""

    def __init__(
        self, connections: Connections, channels: Sequence[str], patterns: Sequence[str], deliver: Deliver
    ) -> None:
        self._connections, self._deliver = connections, deliver
        self._channels, self._patterns = channels, patterns
        self._redis = connections.single()
        self._heard_at = 0.0
        self.live = asyncio.Event()
        """Set while Redis has confirmed every subscription."""

    async def run(self) -> None:
        """Subscribe, deliver, notice silence, subscribe anew; until cancelled."""
        backoff = Backoff()
        try:
            while True:
                try:
                    await self._follow(backoff)
                except MqError as error:
                    if self.live.is_set():
                        log.warning("subscription interrupted", error=str(error))
                    self.live.clear()
                    await asyncio.sleep(backoff.next_s())
        finally:
            await self._redis.aclose()

    async def _follow(self, backoff: Backoff) -> None:
        pubsub = self._redis.pubsub()
        reader: asyncio.Task[None] | None = None
        try:
            await self._connections.guard(lambda: self._subscribe(pubsub))
            reader = asyncio.create_task(self._read(pubsub, backoff), name="subscription reader")
            await self._watch(pubsub, reader)
        finally:
            if reader is not None:
                reader.cancel()
                await asyncio.wait([reader])
            with contextlib.suppress(Exception):  # it is thrown away, in whatever state it is
                async with asyncio.timeout(1.0):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]
            await self._redis.connection_pool.disconnect()

    async def _subscribe(self, pubsub: PubSub) -> None:
        if self._channels:
            await pubsub.subscribe(*self._channels)
        if self._patterns:
            await pubsub.psubscribe(*self._patterns)
        self._heard_at = asyncio.get_running_loop().time()

    async def _watch(self, pubsub: PubSub, reader: asyncio.Task[None]) -> None:
        """Ping after a second of silence, give up after three. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.wait([reader], timeout=PING_AFTER_S)
            if reader.done():
                await self._connections.guard(lambda: reader)
            silence_s = loop.time() - self._heard_at
            if silence_s >= SILENT_S:
                raise Unavailable(f"nothing heard for {silence_s:.1f} s")
            if silence_s >= PING_AFTER_S:
                await self._connections.guard(pubsub.ping, PING_AFTER_S)

    async def _read(self, pubsub: PubSub, backoff: Backoff) -> None:
        missing = len(self._channels) + len(self._patterns)
        loop = asyncio.get_running_loop()
        while True:
            try:
                reply = await pubsub.parse_response(block=True)
            except ResponseError:
                if not self.live.is_set():
                    raise  # we may not subscribe
                reply = None  # a ping is refused, as writes are, when the disk is full: the connection lives
            self._heard_at = loop.time()
            match reply:
                case [b"message", channel, body]:
                    self._deliver(channel.decode(), channel.decode(), body)
                case [b"pmessage", pattern, channel, body]:
                    self._deliver(pattern.decode(), channel.decode(errors="replace"), body)
                case [b"subscribe" | b"psubscribe", _, _]:
                    missing -= 1
                    if missing == 0:
                        self.live.set()
                        backoff.reset()
