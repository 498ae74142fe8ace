"""Probes: alive, and ready for traffic."""

from aiohttp import web

from mqservice.web.context import CONTEXT


async def livez(_request: web.Request) -> web.Response:
    """200 as long as the event loop turns."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """200 while this process takes messages; 503 from the first moment of a drain."""
    if request.app[CONTEXT].is_ready():
        return web.Response(text="ready\n")
    return web.Response(status=503, text="draining\n", headers={"Retry-After": "1"})
