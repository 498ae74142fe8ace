"""Probes: alive, and ready for traffic."""

from aiohttp import web

from mqservice.web.context import CONTEXT


async def livez(request: web.Request) -> web.Response:
    """200 as long as the event loop turns and every consumer is answered; 503 when only a restart helps.

    An outage of Redis is no reason to restart: then it stays 200.
    """
    if await request.app[CONTEXT].is_alive():
        return web.Response(text="ok\n")
    return web.Response(status=503, text="a consumer is stuck, though Redis answers\n", headers={"Retry-After": "5"})


async def readyz(request: web.Request) -> web.Response:
    """200 while this process takes messages; 503 from the first moment of a drain.

    Also 503 when no answer has come to a consumer for 30 s.
    """
    reason = request.app[CONTEXT].not_ready()
    if not reason:
        return web.Response(text="ready\n")
    return web.Response(status=503, text=f"{reason}\n", headers={"Retry-After": "1"})
