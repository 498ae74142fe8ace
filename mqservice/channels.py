"""Channels: publish over Redis. Used by the service and the web.

A message reaches who listens at that moment; a channel that keeps a history notes it as well, in the same step.
"""

from collections.abc import Callable

from mqservice.broker import new_id
from mqservice.channel_history import ChannelHistory, Publication
from mqservice.config import ChannelOptions
from mqservice.connections import Connections
from mqservice.errors import InvalidName
from mqservice.keys import RESERVED
from mqservice.rates import Pace


class Channels:
    """Publishes by our names of channels, and counts what it published."""

    def __init__(self, connections: Connections, options: Callable[[str], ChannelOptions]) -> None:
        self._connections, self._options = connections, options
        self._pace = Pace()

    async def publish(self, channel: str, body: bytes, token: str = "") -> Publication:
        """Publish to the channel; tell how many connections received it. 1 round trip.

        With a history it is safe to repeat with the same `token`; without, it is done once, and may be lost. Raises
        InvalidName for a channel of the service's own, Unavailable, OutOfMemory.
        """
        options = self._options(channel)
        if options.key.startswith(RESERVED):
            raise InvalidName(f"channel {channel!r}: those that begin with {RESERVED} are the service's own")
        if options.history:
            publication = await ChannelHistory(self._connections, options).publish(body, token or new_id())
        else:
            publication = Publication("", await self._publish(options.key, body))
        self._pace.count(channel)
        return publication

    def per_s(self) -> dict[str, float]:
        """Return how many messages a second were published here lately, by channel."""
        return self._pace.per_s()

    async def _publish(self, key: str, body: bytes) -> int:
        receivers: int = await self._connections.guard(lambda: self._connections.commands.publish(key, body))
        return receivers
