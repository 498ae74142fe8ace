"""Channels: publish, and follow as a stream of events."""

import re
from typing import Final

from aiohttp import web
from msgspec import UNSET

from mqservice.channel_history import EventId
from mqservice.web.answers import Published, answer
from mqservice.web.body import read_content
from mqservice.web.context import CONTEXT
from mqservice.web.idempotent import NewId, once
from mqservice.web.parameters import EVENT_ID_PATTERN, ResumeQuery
from mqservice.web.problems import Refusal
from mqservice.web.sse import STREAMS, Feed

_EVENT_ID: Final = re.compile(EVENT_ID_PATTERN.removesuffix("$"))


async def publish(request: web.Request) -> web.Response:
    """Publish a message to every subscriber of a channel. The body is the message, as it is.

    Where the channel keeps a history (`history` in the configuration), the id in the answer is that of its event.
    """
    content = await read_content(request)
    return await once(request, [content.body], lambda new_id: _publish(request, content.body, new_id))


async def events(request: web.Request, query: ResumeQuery) -> web.StreamResponse:
    """Follow a channel, or all Redis channels that fit a pattern with `*`, as server-sent events.

    `event: message` has the JSON of type ChannelMessage. Where the channel keeps a history, each has an id, and a
    client that says the last one it got (as browsers do by themselves) goes on right after it, each message once and
    in order; `0-0` is before all. `event: gap`, of type Gap, says that messages were missed which are not kept. Other
    channels, patterns, and messages published by other clients of Redis, are live only: without ids.
    """
    fanout, feed = request.app[CONTEXT].fanout, Feed(None if query.limit is UNSET else query.limit)
    tail = await fanout.join(request.match_info["pattern"], feed.put, _last(request, query))
    try:
        return await request.app[STREAMS].serve(request, feed, lambda: tail.resume(feed.room))
    finally:
        fanout.leave(tail)


async def _publish(request: web.Request, body: bytes, new_id: NewId) -> web.Response:
    token = new_id()
    published = await request.app[CONTEXT].publish(request.match_info["channel"], body, token)
    return answer(Published(published.id or token, published.receivers), 202)


def _last(request: web.Request, query: ResumeQuery) -> EventId | None:
    """Return where a client left off. The header comes first: a browser that comes back asks the same URL with it."""
    given = request.headers.get("Last-Event-ID")
    if given is not None and not _EVENT_ID.fullmatch(given):
        raise Refusal("invalid-parameter", f"Last-Event-ID {given[:60]!r} is not the id of an event, such as 1-1")
    if given is None and query.last_event_id is not UNSET:
        given = query.last_event_id
    return EventId.parse(given) if given else None
