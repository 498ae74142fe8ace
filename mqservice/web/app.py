"""The aiohttp application: the route table, the edge around every handler, the limits."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Final

from aiohttp import web

from mqservice import keys
from mqservice.config import HttpConfig, Token
from mqservice.tally import RouteTally
from mqservice.web import edge, openapi
from mqservice.web.body import ROOM, Room
from mqservice.web.context import CONTEXT, HTTP, Context
from mqservice.web.docs import CURL
from mqservice.web.gate import Check, Gate
from mqservice.web.live import LIVE, Live
from mqservice.web.metrics import CLIENT_LEFT, tally_of, tally_of_none
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
    "file": "palette.css",
}


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_NO_TOKENS: Final[Mapping[str, Token]] = {}


def application(context: Context, config: HttpConfig, tokens: Mapping[str, Token] = _NO_TOKENS) -> web.Application:
    """Return the application; nothing runs yet. Without tokens everybody may do everything."""
    app = web.Application()  # and no middleware: one costs more than all that `_surrounded` does
    waits = Waits()
    app[CONTEXT], app[HTTP], app[WAITS] = context, config, waits
    app[ROOM] = Room()
    app[STREAMS], app[LIVE] = Streams(), Live(context)
    app[openapi.DOCUMENT] = openapi.encoded(ROUTES, bool(tokens))
    app[CURL] = {route.operation: curl(route, config.port, bool(tokens)) for route in ROUTES}
    app.on_response_prepare.append(edge.on_prepare)
    app.on_shutdown.append(waits.cut_short)
    app.on_shutdown.append(app[STREAMS].end_all)
    app.on_cleanup.append(app[LIVE].aclose)
    gate = Gate(config, tokens, lambda: context.session_key)
    for route in ROUTES:
        handler = _surrounded(route, gate.checks(route), tally_of(route, context.tally))
        app.router.add_route(route.method, route.path, handler, expect_handler=edge.expect)
    nowhere = _nowhere(tally_of_none(context.tally))
    app.router.add_route("*", "/{path:.*}", nowhere, expect_handler=edge.expect)
    return app


def curl(route: Route, port: int, needs_token: bool = False) -> str:
    """Return a curl line that tries a route."""
    method = {"GET": "", "HEAD": "-I "}.get(route.method, f"-X {route.method} ")
    path = route.plain_path.format_map(_EXAMPLES) + (f"?{route.example}" if route.example else "")
    body = f" {route.body.curl}" if route.body else ""
    if body and route.method == "POST":
        method = ""  # curl knows
    if any(isinstance(its.content, Events) for its in route.answers.values()):
        method = "-N "  # each event as it comes
    token = ' -H "Authorization: Bearer $MQSERVICE_TOKEN"' if needs_token and route.needs_token else ""
    return f"curl {method}'http://localhost:{port or 5000}{path}'{token}{body}"


def _surrounded(route: Route, checks: tuple[Check, ...], tally: RouteTally) -> Handler:
    """Return the handler of a route behind what needs none: gate, names, query parameters. Errors become problems.

    What is counted is counted here: one add and one observation a request, nothing looked up.
    """
    query, codes, timed, observe = route.query, tally.codes, tally.timed, tally.took.observe

    async def handle(request: web.Request) -> web.StreamResponse:
        began_at = perf_counter()
        response: web.StreamResponse
        try:
            for check in checks:
                check(request)
            if query is None:
                response = await route.handler(request)
            else:
                for name, value in request.match_info.items():
                    (keys.valid_pattern if name == "pattern" else keys.valid_name)(value, name)
                parsed = parse(request, query)
                response = await (route.handler(request) if query is NoQuery else route.handler(request, parsed))
        except asyncio.CancelledError:
            codes[CLIENT_LEFT] += 1
            raise
        except Exception as error:  # noqa: BLE001 - the edge
            response = edge.as_problem(request, error)
        codes[response.status] += 1
        if timed:
            observe(perf_counter() - began_at)
        return response

    return handle


def _nowhere(tally: RouteTally) -> Handler:
    """Return the handler of what no route takes."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = await edge.nowhere(request)
        tally.codes[response.status] += 1
        return response

    return handle
