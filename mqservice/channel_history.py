"""What was published on a channel lately, where the channel keeps it: a Redis stream, bounded in number and time.

Used by `channels` (publish) and `fanout` (read). Every message has a number, one more than that of the one before; so
whoever knows the last that it saw can tell whether it missed any, and how many.
"""

from typing import Any, NamedTuple, Self, cast

from mqservice import keys, scripts
from mqservice.config import ChannelOptions
from mqservice.connections import Connections

PAGE = 50
"""Messages a read."""


class EventId(NamedTuple):
    """`<ms>-<number>`: when it was published by the clock of Redis, and the how manieth of its channel it is."""

    ms: int
    number: int

    @classmethod
    def parse(cls, text: bytes | str) -> Self:
        """Return the id that a text says. Raises ValueError."""
        ms, _, number = (text.decode() if isinstance(text, bytes) else text).partition("-")
        return cls(int(ms), int(number))

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"


NOTHING = EventId(0, 0)
"""Before everything."""


class Publication(NamedTuple):
    """What became of a message that was published. `id`: an EventId where the channel keeps a history, else empty."""

    id: str
    receivers: int


class ChannelHistory:
    """The latest messages of one channel."""

    def __init__(self, connections: Connections, channel: ChannelOptions) -> None:
        self._connections, self._channel = connections, channel
        self._key = keys.channel_history(channel.key)

    async def publish(self, body: bytes, token: str) -> Publication:
        """Note a message and publish it. 1 round trip; safe to repeat with the same token for a minute.

        Raises OutOfMemory (nobody heard of it), or Unavailable when Redis stayed away for the deadline.
        """
        channel = self._channel
        args = [channel.key, body, token, channel.history, int(channel.history_s * 1000)]
        patience_s = self._connections.deadline_s
        event_id, receivers = await self._connections.insist(scripts.PUBLISH, self._key, args, patience_s)
        return Publication(event_id.decode(), receivers)

    async def newest(self) -> EventId:
        """Return the id of the latest message; NOTHING when there has been none for 30 days. 1 round trip."""
        last = keys.part(self._key, "last")
        stored = cast("bytes | None", await self._connections.guard(lambda: self._connections.commands.get(last)))
        return EventId.parse(stored) if stored else NOTHING

    async def after(self, last: EventId) -> list[tuple[EventId, bytes]]:
        """Return up to PAGE messages that came after `last`, as far as they are kept. 1 round trip."""

        async def read() -> list[tuple[bytes, dict[bytes, bytes]]]:
            redis: Any = self._connections.commands
            found = await redis.xrange(self._key, f"({last}", "+", count=PAGE)
            return cast("list[tuple[bytes, dict[bytes, bytes]]]", found)

        entries = await self._connections.guard(read)
        return [(EventId.parse(event_id), fields.get(b"b", b"")) for event_id, fields in entries]
