"""Metrics over HTTP."""

from typing import Final

from aiohttp import web

from mqservice.metrics import OPEN_METRICS_TYPE, TEXT_TYPE
from mqservice.tally import RouteTally, Tally
from mqservice.web.context import CONTEXT
from mqservice.web.parameters import MetricsQuery
from mqservice.web.route import Events, Route

CLIENT_LEFT: Final = 499
"""The code of a request whose client did not wait for the answer."""

_OPEN_METRICS: Final = "application/openmetrics-text"
_QUIET: Final = ("/livez", "/readyz", "/metrics")


async def metrics(request: web.Request, query: MetricsQuery) -> web.Response:
    """Show the metrics of this process to Prometheus, or with `?scope=all` those of all processes.

    In Prometheus' text format, or OpenMetrics when `Accept` asks for it. Where several processes share a port, a
    scrape meets any of them: then `?scope=all`. Its counters only grow, whichever processes come and go.
    """
    open_metrics = _OPEN_METRICS in request.headers.get("Accept", "")
    text = await request.app[CONTEXT].metrics.text(query.scope, open_metrics=open_metrics)
    return web.Response(body=text, headers={"Content-Type": OPEN_METRICS_TYPE if open_metrics else TEXT_TYPE})


def tally_of(route: Route, tally: Tally) -> RouteTally:
    """Return what counts the requests to a route."""
    streams = any(isinstance(answer.content, Events) for answer in route.answers.values())
    return tally.route(f"{route.method} {route.plain_path}", quiet=route.path in _QUIET, timed=not streams)


def tally_of_none(tally: Tally) -> RouteTally:
    """Return what counts the requests that no route takes, whatever their method and path."""
    return tally.route("other none", timed=False)
