"""What one process reads and writes in its Redis: brokers by queue, channels, schedules, who waits.

Made by `runtime`; shared by the service, the tasks of the runtime and the web. Nothing here runs by itself.
"""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from mqservice import keys
from mqservice.broker import Broker
from mqservice.channels import Channels
from mqservice.config import ChannelOptions, Config, QueueOptions
from mqservice.connections import Connections
from mqservice.fanout import Fanout
from mqservice.handlers import Registry, is_pattern
from mqservice.message import Outgoing
from mqservice.message_view import MessageView
from mqservice.numbers import Numbers, numbers
from mqservice.operations import Operations
from mqservice.queue_streams import QueueStreams
from mqservice.results import Waiters
from mqservice.schedule_store import Schedules
from mqservice.tally import Tally
from mqservice.views import Views

_BROKERS = 1_000
"""Brokers kept at hand; then those that have a handler or something under way. The names come from outside."""


class Backend:
    """Everything over the connections of one process.

    `name`: of the process. `make`: Broker, or the one that makes spans too.
    """

    def __init__(
        self,
        connections: Connections,
        config: Config,
        registry: Registry,
        name: str,
        tally: Tally,
        make: Callable[[Connections, QueueOptions, Callable[[int], None]], Broker],
    ) -> None:
        self.connections = connections
        self._config, self._registry, self._tally, self._make = config, registry, tally, make
        self._brokers: dict[str, Broker] = {}
        self.waiters = Waiters(connections, keys.process_channel(name))
        """Everybody in this process who waits for a message."""
        self.schedules = Schedules(connections)
        self.channels = Channels(connections, self.channel)
        """What publishes."""
        self.fanout = Fanout(connections, self.channel)
        """What clients follow."""
        self.queue_streams = QueueStreams(connections)
        """The queues that clients watch."""

    def broker(self, queue: str) -> Broker:
        """Return the broker of a queue. Raises InvalidName."""
        broker = self._brokers.get(queue)
        if broker is None:
            handler = self._registry.handlers.get(queue)
            options = self._config.queue_options(queue, **(handler.options if handler else {}))
            if len(self._brokers) >= _BROKERS:
                self._brokers = {
                    q: b for q, b in self._brokers.items() if q in self._registry.handlers or not b.is_idle
                }
            count_sent = partial(self._tally.sent, queue)
            broker = self._brokers[queue] = self._make(self.connections, options, count_sent)
        return broker

    def views(self, queue: str) -> Views:
        """Return the views of a queue. Raises InvalidName."""
        return Views(self.connections, self.broker(queue).queue)

    def operations(self, queue: str) -> Operations:
        """Return the operations on a queue. Raises InvalidName."""
        return Operations(self.connections, self.broker(queue).queue)

    def channel(self, name: str) -> ChannelOptions:
        """Return what holds for a channel. Raises InvalidName."""
        return self._config.channel_options(name, self._registry.channel_key(name))

    async def wait(self, queue: str, message_id: str, timeout_s: float) -> MessageView | None:
        """Return a message as soon as it has ended, else as it is after `timeout_s`; None: unknown."""
        return await self.waiters.wait(self.broker(queue).queue, message_id, timeout_s)

    async def queues(self) -> list[str]:
        """Return the names of all queues that any process has served or sent to, sorted. 1 round trip."""
        names = await self.connections.guard(lambda: self.connections.commands.smembers(keys.QUEUES))
        known = (name.decode(errors="replace") if isinstance(name, bytes) else name for name in names)
        return sorted(name for name in known if keys.is_name(name))  # a stranger may have put in anything

    async def known_queues(self) -> list[QueueOptions]:
        """Return what holds for each of `queues()`. 1 round trip."""
        return [self.broker(name).queue for name in await self.queues()]

    async def numbers(self) -> Numbers:
        """Return everything at a glance. 7 round trips."""
        names = {*self._config.channels, *(subscriber.name for subscriber in self._registry.subscribers)}
        channels = {name: self.channel(name).key for name in names if not is_pattern(name)}
        return await numbers(self.connections, await self.known_queues(), channels)

    async def send_scheduled(self, queue: str, body: bytes, message_id: str) -> str:
        """Send what a schedule fires; return the state as `Broker.send`."""
        broker = self.broker(queue)
        if broker.queue.delivery == "at-most-once":
            await broker.push(body)
            return "ready"
        return await broker.send(Outgoing(message_id, body))

    async def aclose(self, timeout_s: float) -> None:
        """Let sends under way finish for at most `timeout_s`, then close every connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for broker in self._brokers.values():
                    await broker.aclose()
        await self.connections.aclose()
