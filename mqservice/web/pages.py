"""The tutorial's three routes, and the files of the pages."""

import random
from importlib.resources import files

from aiohttp import web

from mqservice.web.access import demand_queue
from mqservice.web.context import CONTEXT

_STATIC = files("mqservice.web") / "static"
_CSP = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PREFETCH = {"prefetch", "prerender", "preview"}


def _read(name: str) -> bytes:
    return (_STATIC / name).read_bytes()


_INDEX = _read("index.html")
_INDEX_CSS = _read("index.css")


async def index(_request: web.Request) -> web.Response:
    """Answer the start page. Constant: siege follows each redirect to it."""
    return web.Response(
        body=_INDEX,
        content_type="text/html",
        charset="utf-8",
        headers={"Content-Security-Policy": _CSP, "X-Content-Type-Options": "nosniff"},
    )


async def index_css(_request: web.Request) -> web.Response:
    """Answer the start page's style sheet."""
    return web.Response(
        body=_INDEX_CSS,
        content_type="text/css",
        charset="utf-8",
        headers={"Cache-Control": "max-age=300", "X-Content-Type-Options": "nosniff"},
    )


async def prodcons(request: web.Request) -> web.Response:
    """Push a random digit onto the queue `prodcons`, bare, as the tutorial does; go back to the page."""
    demand_queue(request, "prodcons")
    if _is_wanted(request):
        await request.app[CONTEXT].broker("prodcons").push(_digit())
    return _back(request)


async def pubsub(request: web.Request) -> web.Response:
    """Publish a random digit on the channel `pubsub`; go back to the page."""
    if _is_wanted(request):
        await request.app[CONTEXT].publish("pubsub", _digit(), "")
    return _back(request)


def _digit() -> bytes:
    return b"%d" % random.randrange(10)  # noqa: S311 - a dish, not a secret


def _is_wanted(request: web.Request) -> bool:
    """HEAD asks what GET would answer; a prefetch is a browser's guess. Neither may push."""
    return request.method == "GET" and not _is_prefetch(request)


def _is_prefetch(request: web.Request) -> bool:
    purpose = request.headers.get("Sec-Purpose") or request.headers.get("Purpose") or ""
    return not _PREFETCH.isdisjoint(purpose.lower().replace(";", " ").split())


def _back(request: web.Request) -> web.Response:
    if _is_prefetch(request):  # a browser does not keep this, so the later click does push
        return web.Response(status=503, text="not for prefetching\n", headers={"Cache-Control": "no-store"})
    return web.Response(status=302, headers={"Location": "/", "Cache-Control": "no-store"})
