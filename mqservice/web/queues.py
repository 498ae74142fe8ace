"""Queues as a whole: list, look, delete, replay the dead, pause, resume."""

import asyncio

from aiohttp import web
from msgspec import UNSET

from mqservice.web.access import sees
from mqservice.web.answers import Deleted, Paused, Queues, Replayed, answer
from mqservice.web.context import CONTEXT
from mqservice.web.parameters import ReplayQuery
from mqservice.web.problems import Refusal


async def index(request: web.Request) -> web.Response:
    """List all queues that anybody has served or sent to, with their numbers."""
    context = request.app[CONTEXT]
    names = [name for name in await context.queues() if sees(request, name)]
    return answer(Queues(await asyncio.gather(*(context.views(name).queue_or_fault() for name in names))))


async def view(request: web.Request) -> web.Response:
    """Show one queue: counts per state, rates, the age of the oldest ready message, consumers, whether it is paused."""
    context, queue = request.app[CONTEXT], request.match_info["queue"]
    if queue not in await context.queues():
        raise _unknown(queue)
    return answer(await context.views(queue).queue())


async def delete(request: web.Request) -> web.Response:
    """Delete a queue with all its messages, dead letters, results and statistics, as if there had never been one.

    Refused while anybody consumes it or works on a message of it. Schedules stay: the next message that is sent to it
    makes it anew.
    """
    context, queue = request.app[CONTEXT], request.match_info["queue"]
    if queue not in await context.queues():
        raise _unknown(queue)
    return answer(Deleted(await context.operations(queue).delete()))


async def replay(request: web.Request, query: ReplayQuery) -> web.Response:
    """Replay dead messages, the oldest first: all, or those that died of one reason or in a span of time.

    With a `rate` they become ready one after the other at that pace, also when this process ends.
    """
    replayed = (
        await request.app[CONTEXT]
        .operations(request.match_info["queue"])
        .replay_all(
            reason=None if query.reason is UNSET else query.reason,
            since_ms=0 if query.since is UNSET else query.since.epoch_ms,
            until_ms=0 if query.until is UNSET else query.until.epoch_ms,
            limit=query.limit,
            rate=query.rate,
        )
    )
    return answer(Replayed(replayed), 202)


async def pause(request: web.Request) -> web.Response:
    """Hand out no message of the queue, in any process, until it is resumed.

    What is active goes on, and messages can still be sent.
    """
    queue = request.match_info["queue"]
    await request.app[CONTEXT].operations(queue).pause()
    return answer(Paused(queue, True))


async def resume(request: web.Request) -> web.Response:
    """Hand out messages again."""
    queue = request.match_info["queue"]
    await request.app[CONTEXT].operations(queue).resume()
    return answer(Paused(queue, False))


def _unknown(queue: str) -> Refusal:
    return Refusal("no-such-queue", f"nobody has served queue {queue} or sent to it")
