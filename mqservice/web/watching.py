"""What becomes of messages, as event streams: of one message, and of all of a queue."""

import asyncio
from typing import Final

from aiohttp import web
from msgspec import UNSET, Struct

from mqservice.config import QueueOptions
from mqservice.errors import MqError
from mqservice.events import encode
from mqservice.message import JSON
from mqservice.message_view import MessageView
from mqservice.results import ENDED, Waiters
from mqservice.web.context import CONTEXT
from mqservice.web.parameters import StreamQuery
from mqservice.web.problems import Refusal
from mqservice.web.sse import STREAMS, Feed

LOOK_S: Final = 1.0


class Gone(Struct, frozen=True):
    """The message is not known any more: it was purged, or its time was over."""

    id: str


async def message(request: web.Request, query: StreamQuery) -> web.StreamResponse:
    """Follow one message as server-sent events, until it has ended.

    `event: state`, of type MessageView, comes at once and with every change of state or attempt; `event: progress`, of
    type Progress, as its handler reports. The end comes as it happens, all else is looked at once a second. `event:
    gone` when the message is not known any more.
    """
    context, message_id = request.app[CONTEXT], request.match_info["id"]
    queue = context.broker(request.match_info["queue"]).queue
    view = await context.waiters.wait(queue, message_id, 0.0)
    if view is None:
        raise Refusal("no-such-message", f"queue {queue.name} has no message {message_id}")
    feed = Feed(None if query.limit is UNSET else query.limit)
    return await request.app[STREAMS].serve(request, feed, lambda: _follow(context.waiters, queue, view, feed))


async def queue(request: web.Request, query: StreamQuery) -> web.StreamResponse:
    """Follow what becomes of the messages of a queue, as server-sent events.

    `event: state`, of type StateEvent, for each message that comes into a state, but at most 200 a second; `event:
    skipped`, of type Skipped, says how many were left out. It begins now: `/v1/queues/{queue}/messages` shows what is.
    """
    context = request.app[CONTEXT]
    queue, feed = context.broker(request.match_info["queue"]).queue, Feed(None if query.limit is UNSET else query.limit)
    put = feed.put
    await context.queue_streams.join(queue, put)
    try:
        return await request.app[STREAMS].serve(request, feed)
    finally:
        context.queue_streams.leave(queue, put)


async def _follow(waiters: Waiters, queue: QueueOptions, view: MessageView, feed: Feed) -> None:
    """Put the changes of a message into a feed, and end it with the message. Waits for a Redis that is away."""
    shown: MessageView | None = None
    while True:
        if shown is None or _stage(view) != _stage(shown):
            feed.put(encode("state", JSON.encode(view)))
        elif view.progress != shown.progress:
            feed.put(encode("progress", JSON.encode(view.progress)))
        if view.state in ENDED:
            feed.end()
            return
        shown = view
        found = await _look(waiters, queue, view.id)
        if found is None:
            feed.put(encode("gone", JSON.encode(Gone(view.id))))
            feed.end()
            return
        view = found


async def _look(waiters: Waiters, queue: QueueOptions, message_id: str) -> MessageView | None:
    while True:
        try:
            return await waiters.wait(queue, message_id, LOOK_S)
        except MqError:  # an outage is logged by the connections
            await asyncio.sleep(LOOK_S)


def _stage(view: MessageView) -> tuple[str, int, int]:
    return view.state, view.deliveries, view.attempts_used
