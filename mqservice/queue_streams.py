"""What becomes of the messages of a queue, for any number of clients: sampled, so that a busy queue floods nobody.

Used by the web's event streams; fed by the process's subscription. The scripts publish only while somebody watches:
a process that has clients for a queue says so again and again.
"""

import asyncio
from collections.abc import Callable
from typing import Literal

import structlog
from msgspec import Struct

from mqservice import keys, scripts
from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.errors import MqError, Unavailable
from mqservice.events import encode
from mqservice.message import JSON
from mqservice.message_view import State
from mqservice.subscription import Name, Subscription

log = structlog.get_logger()

Put = Callable[[bytes], None]
"""Called with each event for one client, encoded. Must not block."""

MOST_PER_S = 200
"""Events of a queue a second; the rest is counted."""

_RENEW_S = 3.0
_WATCH_MS = 10_000


class StateEvent(Struct, frozen=True):
    """A message has come into a state, `at_ms` by the clock of Redis; or it was purged."""

    id: str
    state: State | Literal["purged"]
    at_ms: int


class Skipped(Struct, frozen=True):
    """So many events were left out; None: perhaps some, nobody knows."""

    count: int | None


class _Follow:
    """One queue that clients of this process watch."""

    def __init__(self, queue: QueueOptions) -> None:
        self.queue = queue
        self.name = Name(keys.queue_channel(queue.key))
        self.puts: list[Put] = []
        self._left = MOST_PER_S
        self._skipped = 0

    def tell(self, body: bytes) -> None:
        """Hand on what a script published."""
        head, *lines = body.decode(errors="replace").split("\n")
        at_ms, untold = head.split(" ")
        self._skipped += int(untold)
        for line in lines:
            if self._left <= 0:
                self._skipped += 1
                continue
            self._left -= 1
            state, _, message_id = line.partition(" ")
            self._to_all("state", {"id": message_id, "state": state, "at_ms": int(at_ms)})

    def turn(self) -> None:
        """Begin another second."""
        self._left = MOST_PER_S
        if self._skipped:
            self._to_all("skipped", {"count": self._skipped})
            self._skipped = 0

    def interrupted(self) -> None:
        """Say that events may have been missed."""
        self._to_all("skipped", {"count": None})

    def _to_all(self, name: str, data: dict[str, object]) -> None:
        encoded = encode(name, JSON.encode(data))
        for put in tuple(self.puts):
            put(encoded)


class QueueStreams:
    """The queues that clients of this process watch, by their channels."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._follows: dict[str, _Follow] = {}
        self._subscription: Subscription | None = None
        self._wanted = asyncio.Event()

    def attach(self, subscription: Subscription) -> None:
        """Follow over this subscription, which delivers to `deliver`."""
        self._subscription = subscription
        subscription.on_live.append(self._live)

    async def join(self, queue: QueueOptions, put: Put) -> None:
        """Hand a queue's events to a client; `leave` ends it. Raises Unavailable."""
        channel = keys.queue_channel(queue.key)
        follow = self._follows.setdefault(channel, _Follow(queue))
        follow.puts.append(put)
        self._wanted.set()
        try:
            async with asyncio.timeout(self._connections.deadline_s):
                await self._attached().add([follow.name])
                await self._watch(follow)
        except BaseException as error:
            self.leave(queue, put)
            if isinstance(error, TimeoutError):
                raise Unavailable("Redis did not confirm the subscription in time") from error
            raise

    def leave(self, queue: QueueOptions, put: Put) -> None:
        """Hand nothing more to a client."""
        channel = keys.queue_channel(queue.key)
        follow = self._follows[channel]
        follow.puts.remove(put)
        self._attached().drop([follow.name])
        if not follow.puts:
            del self._follows[channel]
        if not self._follows:
            self._wanted.clear()

    def deliver(self, channel: str, body: bytes) -> None:
        """Take what the subscription delivers."""
        follow = self._follows.get(channel)
        if follow is None:
            return
        try:
            follow.tell(body)
        except ValueError:
            log.warning("unknown notification", channel=channel)

    async def run(self) -> None:
        """Keep the queues watched while somebody looks; until cancelled."""
        loop = asyncio.get_running_loop()
        renewed_at = loop.time()
        while True:
            await self._wanted.wait()
            await asyncio.sleep(1.0)
            for follow in self._follows.values():
                follow.turn()
            if loop.time() >= renewed_at + _RENEW_S:
                renewed_at = loop.time()
                await self._renew()

    async def _renew(self) -> None:
        for follow in tuple(self._follows.values()):
            try:
                await self._watch(follow)
            except MqError:
                return  # an outage is logged by the connections; the subscription will tell of it

    async def _watch(self, follow: _Follow) -> None:
        await self._connections.run(scripts.WATCH_QUEUE, follow.queue.key, [_WATCH_MS])

    def _live(self) -> None:
        for follow in self._follows.values():
            follow.interrupted()

    def _attached(self) -> Subscription:
        if self._subscription is None:
            raise RuntimeError("no subscription yet")
        return self._subscription
