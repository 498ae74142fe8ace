"""Channels for any number of clients: one subscription of the process, each message encoded once, handed to all.

Used by the web's event streams; fed by the process's subscription. Where a channel keeps a history, a client gets
every message once and in order: it resumes after the last that it knows of, and what passes while the connection to
Redis is being renewed is read from the history. Elsewhere, and for patterns, it is told that it may have missed some.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from msgspec import Raw, Struct

from mqservice.channel_history import NOTHING, PAGE, ChannelHistory, EventId
from mqservice.config import ChannelOptions
from mqservice.connections import Connections
from mqservice.errors import InvalidName, MqError, Unavailable
from mqservice.events import encode
from mqservice.handlers import is_pattern
from mqservice.keys import RESERVED, channel_history
from mqservice.message import JSON
from mqservice.ordering import Ordering
from mqservice.records import value
from mqservice.retry import Backoff
from mqservice.subscription import Name, Subscription

Put = Callable[[bytes], None]
"""Called with each event for one client, encoded. Must not block."""


class ChannelMessage(Struct, frozen=True):
    """A message of a channel: JSON where the body is JSON, else text, else {"base64": ...}."""

    channel: str
    body: Raw


class Gap(Struct, frozen=True):
    """So many messages were missed that are kept no longer; None: perhaps some, nobody knows."""

    missed: int | None


class Follow:
    """One Redis channel, or a pattern, that clients of this process follow."""

    def __init__(self, connections: Connections, channel: ChannelOptions) -> None:
        self.channel = channel
        self.is_pattern = is_pattern(channel.key)
        self.history = ChannelHistory(connections, channel) if channel.history else None
        self.marker = channel_history(channel.key) if channel.history else ""
        """The Redis channel on which the id of each message comes, right before the message."""
        self.tails: set[Tail] = set()
        self.ordering = Ordering(self._to_all)
        self.base: EventId | None = None
        """Newest in the history before the channel was followed."""
        self.interrupted = False

    @property
    def names(self) -> list[Name]:
        """What it needs to be subscribed to."""
        marker = [Name(self.marker)] if self.marker else []
        return [*marker, Name(self.channel.key, self.is_pattern)]

    def encoded(self, body: bytes, event_id: EventId | None, channel: str) -> bytes:
        """Return a message as clients get it."""
        name = channel if self.is_pattern else self.channel.name
        data = JSON.encode(ChannelMessage(name, value(body)))
        return encode("message", data, str(event_id) if event_id else "")

    def _to_all(self, event_id: EventId | None, encoded: bytes) -> None:
        for tail in tuple(self.tails):
            tail.ordering.receive(event_id, encoded)


class Tail:
    """One client's end of a channel."""

    def __init__(self, follow: Follow, put: Put, last: EventId | None) -> None:
        self.follow = follow
        self.ordering = Ordering(self._forward, last)
        self._put = put
        self._known = last
        self._newest = NOTHING
        if follow.history is not None and last is not None:
            self.ordering.hold()

    def begin(self, newest: EventId) -> None:
        """Begin where the client left off. `newest`: the latest in the history."""
        self._newest = newest
        last = self.ordering.last
        if last is None:
            return
        if last > newest or last.number > newest.number:  # the history was lost, and has begun anew
            self.miss(None)
            self.ordering.last = self._known = NOTHING

    async def resume(self, room: Callable[[], Awaitable[None]]) -> None:
        """Hand on what the client missed, awaiting `room()` before each message. Waits for a Redis that is away."""
        if self.follow.history is not None and self.ordering.is_behind:
            await _read_on(self.follow, self.ordering, room, self._end_of_history)

    def miss(self, count: int | None) -> None:
        """Tell the client that it missed some."""
        self._put(encode("gap", JSON.encode(Gap(count))))

    def _end_of_history(self) -> bool:
        if self._known is not None and self._known < self._newest:  # all that it missed has expired
            self.miss(self._newest.number - self._known.number)
            self.ordering.last = self._known = self._newest
        return self.ordering.release()

    def _forward(self, event_id: EventId | None, encoded: bytes) -> None:
        if event_id is not None:
            if self._known is not None and event_id.number != self._known.number + 1:
                missed = event_id.number - self._known.number - 1
                self.miss(missed if missed > 0 else None)
            self._known = event_id
        self._put(encoded)


class Fanout:
    """Everything that clients of this process follow. `options` tells what holds for a channel by our name."""

    def __init__(self, connections: Connections, options: Callable[[str], ChannelOptions]) -> None:
        self._connections, self._options = connections, options
        self._follows: dict[str, Follow] = {}
        """By Redis channel or pattern."""
        self._next_ids: dict[str, EventId] = {}
        """By marker: the id of the message that comes next."""
        self._subscription: Subscription | None = None
        self._behind = asyncio.Event()

    def attach(self, subscription: Subscription) -> None:
        """Follow over this subscription, which delivers to `deliver`."""
        self._subscription = subscription
        subscription.on_lost.append(self._lost)
        subscription.on_live.append(self._live)

    async def join(self, channel: str, put: Put, last: EventId | None) -> Tail:
        """Hand a channel's messages to a client, live or after `last`; `leave` ends it.

        `channel` is a name of ours, or a pattern of Redis channels. The caller runs `Tail.resume`. Raises Unavailable
        when Redis does not confirm in time, and InvalidName for a channel of the service's own.
        """
        options = self._options(channel)
        if options.key.startswith(RESERVED):
            raise InvalidName(f"channel {channel!r}: those that begin with {RESERVED} are the service's own")
        follow = self._follows.get(options.key)
        if follow is None:
            follow = self._follows[options.key] = Follow(self._connections, options)
        tail = Tail(follow, put, last)
        follow.tails.add(tail)
        try:
            await self._begin(tail)
        except BaseException:
            self._forget(tail)
            raise
        return tail

    def leave(self, tail: Tail) -> None:
        """Hand nothing more to a client."""
        self._attached().drop(tail.follow.names)
        self._forget(tail)

    def deliver(self, followed: str, channel: str, body: bytes) -> None:
        """Take what the subscription delivers."""
        if followed.startswith(RESERVED):
            with contextlib.suppress(ValueError):  # somebody else's
                self._next_ids[followed] = EventId.parse(body)
            return
        follow = self._follows.get(followed)
        event_id = self._next_ids.pop(channel_history(followed), None) if self._next_ids else None
        if follow is None or (follow.is_pattern and channel.startswith(RESERVED)):
            return
        if follow.marker and not self._attached().follows(Name(follow.marker)):
            return  # published before we followed: its id has not come, and the history has it
        follow.ordering.receive(event_id, follow.encoded(body, event_id, channel))

    async def run(self) -> None:
        """Read what passed while the connection to Redis was renewed; until cancelled."""
        while True:
            await self._behind.wait()
            self._behind.clear()
            behind = [follow for follow in self._follows.values() if follow.ordering.is_behind]
            await asyncio.gather(*(self._catch_up(follow) for follow in behind))

    async def _begin(self, tail: Tail) -> None:
        follow = tail.follow
        if follow.history is not None:
            newest = await follow.history.newest()  # before it is followed: from here on nothing is missed
            if follow.base is None:
                follow.base = newest
            tail.begin(newest)
        elif tail.ordering.last is not None:
            tail.miss(None)
        try:
            async with asyncio.timeout(self._connections.deadline_s):
                await self._attached().add(follow.names)
        except BaseException as error:
            self._attached().drop(follow.names)
            if isinstance(error, TimeoutError):
                raise Unavailable("Redis did not confirm the subscription in time") from error
            raise

    def _forget(self, tail: Tail) -> None:
        follow = tail.follow
        follow.tails.discard(tail)
        if not follow.tails and self._follows.get(follow.channel.key) is follow:
            del self._follows[follow.channel.key]

    def _lost(self) -> None:
        self._next_ids.clear()
        for follow in self._follows.values():
            if follow.history is not None:
                follow.ordering.hold()
            else:
                follow.interrupted = True

    def _live(self) -> None:
        gap = encode("gap", JSON.encode(Gap(None)))
        for follow in self._follows.values():
            if follow.interrupted:
                follow.interrupted = False
                follow.ordering.receive(None, gap)
        self._behind.set()

    async def _catch_up(self, follow: Follow) -> None:
        def release() -> bool:
            return not follow.tails or not self._attached().follows(Name(follow.marker)) or follow.ordering.release()

        if follow.ordering.last is None:
            follow.ordering.last = follow.base or NOTHING
        await _read_on(follow, follow.ordering, _no_wait, release)

    def _attached(self) -> Subscription:
        if self._subscription is None:
            raise RuntimeError("no subscription yet")
        return self._subscription


async def _read_on(
    follow: Follow, ordering: Ordering, room: Callable[[], Awaitable[None]], release: Callable[[], bool]
) -> None:
    """Hand on the history after the last known message, page by page, until `release()` at its end says that is all."""
    backoff = Backoff()
    while follow.history is not None:
        try:
            page = await follow.history.after(ordering.last or NOTHING)
        except MqError:  # an outage is logged by the connections
            await asyncio.sleep(backoff.next_s())
            continue
        for event_id, body in page:
            await room()
            ordering.put(event_id, follow.encoded(body, event_id, follow.channel.key))
        if len(page) < PAGE and release():
            return


async def _no_wait() -> None:
    return
