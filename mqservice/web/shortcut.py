"""The route of a path that has been answered before, found again without aiohttp's search for it.

To resolve `/v1/queues/{queue}/messages` aiohttp takes the path apart from its end, asks each resource that may fit, and
makes what it finds anew: a twelfth of what a send costs this process.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

Handler = Callable[[Any], Awaitable[web.StreamResponse]]

_PATHS: Final = 1000
"""Remembered at a time. The names come from outside: when there are more, all are forgotten."""


def remembering(handle: Handler) -> Handler:
    """Return an application's own handler with a memory for the paths of POST requests that went well."""
    known: dict[str, web.UrlMappingMatchInfo] = {}

    async def handle_known(request: web.Request) -> web.StreamResponse:
        if request.method != "POST" or "Expect" in request.headers:
            return await handle(request)
        path = request.raw_path
        match_info = known.get(path)
        if match_info is not None:  # frozen, and nobody writes into it: any number of requests may have it
            request._match_info = match_info  # noqa: SLF001 - as the application itself does
            return await match_info.handler(request)
        response = await handle(request)
        if response.status < 300 and "?" not in path:
            if len(known) >= _PATHS:
                known.clear()
            known[path] = request.match_info
        return response

    return handle_known
