"""The one subscriber connection of a process: follows channels and patterns, more and fewer of them as it runs.

Run by the runtime. Pub/sub keeps nothing: what is published while the connection is being renewed is not seen; whoever
must know of that is told when it is lost and when it is back.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import ResponseError

from mqservice.connections import Connections
from mqservice.errors import Misconfigured, MqError, Unavailable
from mqservice.retry import Backoff

log = structlog.get_logger()

Deliver = Callable[[str, str, bytes], None]
"""Called with the channel or pattern subscribed to, the channel published on, and the body. Must not block."""

PING_AFTER_S = 1.0
SILENT_S = 3.0
"""No byte for so long, in spite of pings: the connection is dead, whatever TCP believes."""


class Name(NamedTuple):
    """What can be followed: a channel, or all that fit a pattern."""

    key: str
    is_pattern: bool = False


class Subscription:
    """Follows channels and patterns for as long as it runs, through every outage.

    All of `on_lost` are called when something may have been missed, all of `on_live` when everything is followed
    again, after the first time too; both before anything else is delivered.
    """

    def __init__(
        self, connections: Connections, channels: Sequence[str], patterns: Sequence[str], deliver: Deliver
    ) -> None:
        self._connections, self._deliver = connections, deliver
        self._redis = connections.single()
        self._heard_at = 0.0
        self._wanted = Counter([*(Name(key) for key in channels), *(Name(key, True) for key in patterns)])
        """How many want each name."""
        self._sent: set[Name] = set()
        self._unconfirmed: Counter[Name] = Counter()
        """Subscriptions sent and not yet confirmed; two of a name that was dropped and wanted again at once."""
        self._followed: dict[Name, asyncio.Event] = {}
        self._changed = asyncio.Event()
        self.live = asyncio.Event()
        """Set while Redis has confirmed every subscription of those wanted when it was connected."""
        self._was_live = self._interrupted = False
        self.on_lost: list[Callable[[], None]] = []
        self.on_live: list[Callable[[], None]] = []

    async def add(self, names: Iterable[Name]) -> None:
        """Follow these too; return once Redis has confirmed, however long that takes. Undo with as many `drop`."""
        names = tuple(names)
        self._wanted.update(names)
        self._changed.set()
        for name in names:
            await self._followed.setdefault(name, asyncio.Event()).wait()

    def drop(self, names: Iterable[Name]) -> None:
        """Follow them no longer, unless somebody else wants to. Also after an `add` that was cancelled."""
        self._wanted.subtract(names)
        self._wanted = +self._wanted
        self._changed.set()

    def follows(self, name: Name) -> bool:
        """Tell whether Redis has confirmed it: whatever is published from then on is delivered."""
        followed = self._followed.get(name)
        return followed is not None and followed.is_set()

    async def run(self) -> None:
        """Subscribe, deliver, notice silence, subscribe anew; until cancelled.

        Raises Misconfigured when Redis refuses from the beginning, as when the user may not use the channels.
        """
        backoff = Backoff()
        try:
            while True:
                try:
                    await self._follow(backoff)
                except MqError as error:
                    refused = isinstance(error, Misconfigured)
                    if refused and not self._was_live:
                        raise  # waiting cures no missing right; later on somebody may be changing them
                    if refused or self._interrupted:
                        log.warning("subscription interrupted", error=str(error))
                    self._interrupted = False
                    await asyncio.sleep(backoff.next_s())
        finally:
            await self._redis.aclose()

    async def _follow(self, backoff: Backoff) -> None:
        pubsub = self._redis.pubsub()
        reader: asyncio.Task[None] | None = None
        try:
            await self._connections.guard(lambda: self._subscribe(pubsub))
            self._heard_at = asyncio.get_running_loop().time()
            reader = asyncio.create_task(self._read(pubsub, backoff), name="subscription reader")
            await self._watch(pubsub, reader)
        finally:
            if reader is not None:
                reader.cancel()
                await asyncio.wait([reader])
            self._lose()
            with contextlib.suppress(Exception):  # it is thrown away, in whatever state it is
                async with asyncio.timeout(1.0):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]
            await self._redis.connection_pool.disconnect()

    def _lose(self) -> None:
        self._sent.clear()
        self._unconfirmed.clear()
        for followed in self._followed.values():
            followed.clear()
        if self.live.is_set():
            self.live.clear()
            self._interrupted = True
            for tell in self.on_lost:
                tell()

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Tell Redis what changed of what is wanted. The only place that does, so that it happens in order."""
        self._changed.clear()
        dropped, new = self._sent - self._wanted.keys(), self._wanted.keys() - self._sent
        self._sent = set(self._wanted)
        for name in dropped:
            self._followed.pop(name, asyncio.Event()).clear()
        self._unconfirmed.update(new)
        if keys := [name.key for name in dropped if not name.is_pattern]:
            await pubsub.unsubscribe(*keys)
        if keys := [name.key for name in dropped if name.is_pattern]:
            await pubsub.punsubscribe(*keys)
        if keys := [name.key for name in new if not name.is_pattern]:
            await pubsub.subscribe(*keys)
        if keys := [name.key for name in new if name.is_pattern]:
            await pubsub.psubscribe(*keys)

    async def _watch(self, pubsub: PubSub, reader: asyncio.Task[None]) -> None:
        """Send what is added and dropped; ping after a second of silence, give up after three. Raises MqError."""
        loop = asyncio.get_running_loop()
        while True:
            changed = asyncio.create_task(self._changed.wait(), name="subscription changes")
            try:
                await asyncio.wait([reader, changed], timeout=PING_AFTER_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
            if reader.done():
                await self._connections.guard(lambda: reader)
            if self._changed.is_set():
                await self._connections.guard(lambda: self._subscribe(pubsub))
            silence_s = loop.time() - self._heard_at
            if silence_s >= SILENT_S:
                raise Unavailable(f"nothing heard for {silence_s:.1f} s")
            if silence_s >= PING_AFTER_S:
                await self._connections.guard(pubsub.ping, PING_AFTER_S)

    async def _read(self, pubsub: PubSub, backoff: Backoff) -> None:
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
                    self._deliver(channel.decode(errors="replace"), channel.decode(errors="replace"), body)
                case [b"pmessage", pattern, channel, body]:
                    self._deliver(pattern.decode(errors="replace"), channel.decode(errors="replace"), body)
                case [b"subscribe" | b"psubscribe" as kind, key, _]:
                    self._confirm(Name(key.decode(errors="replace"), kind == b"psubscribe"), backoff)

    def _confirm(self, name: Name, backoff: Backoff) -> None:
        self._unconfirmed[name] -= 1
        if self._unconfirmed[name] > 0:
            return  # of an earlier time: Redis has yet to drop it and take it up again
        del self._unconfirmed[name]
        if name in self._sent:
            self._followed.setdefault(name, asyncio.Event()).set()
        if not self._unconfirmed and not self.live.is_set():
            backoff.reset()
            self.live.set()
            self._was_live = True
            for tell in self.on_live:
                tell()
