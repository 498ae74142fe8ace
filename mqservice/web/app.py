"""The aiohttp application: the route table, the edge around every handler, the limits."""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from mqservice import keys
from mqservice.config import HttpConfig
from mqservice.web import edge, openapi
from mqservice.web.context import CONTEXT, HTTP, Context
from mqservice.web.docs import CURL
from mqservice.web.live import LIVE, Live
from mqservice.web.parameters import NoQuery, parse
from mqservice.web.route import Events, Route
from mqservice.web.routes import ROUTES
from mqservice.web.sse import STREAMS, Streams
from mqservice.web.waiting import WAITS, Waits

_EXAMPLES: Final = {
    "queue": "echo",
    "channel": "prices",
    "pattern": "prices.*",
    "id": "order-42",
    "name": "nightly",
    "code": "queue-full",
}


def application(context: Context, config: HttpConfig) -> web.Application:
    """Return the application; nothing runs yet."""
    app = web.Application(middlewares=[edge.as_problems])
    waits = Waits()
    app[CONTEXT], app[HTTP], app[WAITS] = context, config, waits
    app[STREAMS], app[LIVE] = Streams(), Live(context)
    app[openapi.DOCUMENT] = openapi.encoded(ROUTES)
    app[CURL] = {route.operation: curl(route, config.port) for route in ROUTES}
    app.on_response_prepare.append(edge.on_prepare)
    app.on_shutdown.append(waits.cut_short)
    app.on_shutdown.append(app[STREAMS].end_all)
    app.on_cleanup.append(app[LIVE].aclose)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _checked(route), expect_handler=edge.expect)
    return app


def curl(route: Route, port: int) -> str:
    """Return a curl line that tries a route."""
    method = {"GET": "", "HEAD": "-I "}.get(route.method, f"-X {route.method} ")
    path = route.plain_path.format_map(_EXAMPLES) + (f"?{route.example}" if route.example else "")
    body = f" {route.body.curl}" if route.body else ""
    if body and route.method == "POST":
        method = ""  # curl knows
    if any(isinstance(its.content, Events) for its in route.answers.values()):
        method = "-N "  # each event as it comes
    return f"curl {method}'http://localhost:{port or 5000}{path}'{body}"


def _checked(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return the handler of a route behind the checks that need no handler: names and query parameters."""
    query = route.query
    if query is None:
        return route.handler

    async def handle(request: web.Request) -> web.StreamResponse:
        for name, value in request.match_info.items():
            (keys.valid_pattern if name == "pattern" else keys.valid_name)(value, name)
        parsed = parse(request, query)
        return await (route.handler(request) if query is NoQuery else route.handler(request, parsed))

    return handle
