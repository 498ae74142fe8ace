"""The aiohttp application: its routes in one table, its error edge, its limits."""

from aiohttp import web

from mqservice.config import HttpConfig
from mqservice.web import health, pages
from mqservice.web.context import CONTEXT, Context
from mqservice.web.problems import as_problems

ROUTES = (
    ("GET", "/", pages.index),
    ("HEAD", "/", pages.index),
    ("GET", "/static/index.css", pages.index_css),
    ("GET", "/prodcons", pages.prodcons),
    ("HEAD", "/prodcons", pages.prodcons),
    ("GET", "/pubsub", pages.pubsub),
    ("HEAD", "/pubsub", pages.pubsub),
    ("GET", "/livez", health.livez),
    ("GET", "/readyz", health.readyz),
)
"""Method, path and handler, one line a route."""


def application(context: Context, config: HttpConfig) -> web.Application:
    """Return the application; nothing runs yet."""
    app = web.Application(middlewares=[as_problems], client_max_size=config.body_limit)
    app[CONTEXT] = context
    for method, path, handler in ROUTES:
        app.router.add_route(method, path, handler)
    return app
