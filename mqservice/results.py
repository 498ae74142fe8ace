"""Waiting for messages to end, without polling.

One Redis channel per process, `mq:process:<name>`: whoever waits notes it in the message's record, and the script that
ends the message publishes there. A notification may be lost with a connection; so the record is read again when the
wait is over, whatever woke it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from mqservice import scripts
from mqservice.batching import Batcher
from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.message_view import MessageView
from mqservice.views import Views

ENDED = frozenset({"done", "dead", "cancelled"})

_LOOK_S = 15.0
"""How often a waiter looks by itself, should its notification have been lost."""

_QUEUES = 1_000
"""Queues whose batches are kept at hand; then those with something under way. The names come from outside."""


class Waiters:
    """Everybody in this process who waits for a message."""

    def __init__(self, connections: Connections, channel: str) -> None:
        self.channel = channel
        """Put into a message that is sent (`Outgoing.watch`), it saves the wait a round trip."""
        self._connections = connections
        self._waiting: defaultdict[tuple[str, str], set[asyncio.Event]] = defaultdict(set)
        self._queues: dict[str, _Reads] = {}

    async def wait(self, queue: QueueOptions, message_id: str, timeout_s: float) -> MessageView | None:
        """Return the message as soon as it has ended, else as it is after `timeout_s`; None: unknown.

        Group-committed: thousands of waits share few calls. Raises Unavailable.
        """
        reads = self._queues.get(queue.key)
        if reads is None:
            if len(self._queues) >= _QUEUES:
                self._queues = {key: known for key, known in self._queues.items() if not known.is_idle}
            reads = self._queues[queue.key] = _Reads(self._connections, queue, self.channel)
        ended, key = asyncio.Event(), (queue.key, message_id)
        self._waiting[key].add(ended)
        try:
            await self._until_ended(reads, message_id, ended, timeout_s)
        finally:
            self._waiting[key].discard(ended)
            if not self._waiting[key]:
                del self._waiting[key]
        return await reads.views.put(message_id)

    def notify(self, list_key: str, message_id: str) -> None:
        """Wake whoever waits for this message."""
        for ended in self._waiting.get((list_key, message_id), ()):
            ended.set()

    async def _until_ended(self, reads: "_Reads", message_id: str, ended: asyncio.Event, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while True:
            state = await reads.watches.put(message_id)
            left_s = end - loop.time()
            if state is None or state in ENDED or left_s <= 0:
                return
            try:
                async with asyncio.timeout(min(left_s, _LOOK_S)):
                    await ended.wait()
                return
            except TimeoutError:
                continue


class _Reads:
    """The two group-committed calls of one queue: watch, and read."""

    def __init__(self, connections: Connections, queue: QueueOptions, channel: str) -> None:
        self._connections, self._queue, self._channel = connections, queue, channel
        self._views = Views(connections, queue)
        self.watches: Batcher[str, str | None] = Batcher(self._watch, f"watch {queue.name}")
        self.views: Batcher[str, MessageView | None] = Batcher(self._views.messages, f"read {queue.name}")

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return self.watches.is_idle and self.views.is_idle

    async def _watch(self, ids: Sequence[str]) -> list[str | None]:
        answers = await self._connections.run(scripts.WATCH, self._queue.key, [self._channel, *ids])
        return [answer.decode(errors="replace") if answer else None for answer in answers]
