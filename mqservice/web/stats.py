"""What happened lately, for charts."""

from aiohttp import web

from mqservice.web.answers import answer
from mqservice.web.context import CONTEXT
from mqservice.web.parameters import StatsQuery
from mqservice.web.problems import Refusal


async def index(request: web.Request, query: StatsQuery) -> web.Response:
    """Show what happened in all queues together: rates, depths and run times, in columns of one value a step.

    The last two minutes come in steps of 10 s, an hour or a day in steps of a minute.
    """
    context = request.app[CONTEXT]
    queues = [context.broker(name).queue for name in await context.queues()]
    return answer(await context.history.stats(query.range, queues))


async def queue(request: web.Request, query: StatsQuery) -> web.Response:
    """Show what happened in one queue, as `/v1/stats` does for all."""
    context, name = request.app[CONTEXT], request.match_info["queue"]
    if name not in await context.queues():
        raise Refusal("no-such-queue", f"nobody has served queue {name} or sent to it")
    return answer(await context.history.stats(query.range, [context.broker(name).queue]))
