"""The start page with the tutorial's two routes, and the dashboard."""

import base64
import hashlib
import random
import re
from typing import Final

from aiohttp import web

from mqservice.web.access import demand_queue
from mqservice.web.assets import ASSETS, sent
from mqservice.web.context import CONTEXT

_CSP: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_PREFETCH: Final = {"prefetch", "prerender", "preview"}
_INDEX: Final = ASSETS["index.html"].body
_DASHBOARD: Final = ASSETS["dashboard/index.html"]


def _inline_hashes(page: bytes) -> str:
    """Return the sources that let a page's own inline scripts pass its policy: the import map, nothing else."""
    inline = re.findall(rb"<script type=\"importmap\">(.*?)</script>", page, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in inline)


_DASHBOARD_CSP: Final = (
    f"default-src 'none'; script-src 'self' {_inline_hashes(_DASHBOARD.body)}; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def index(_request: web.Request) -> web.Response:
    """Answer the start page. Constant: siege follows each redirect to it."""
    return web.Response(
        body=_INDEX,
        content_type="text/html",
        charset="utf-8",
        headers={"Content-Security-Policy": _CSP, "X-Content-Type-Options": "nosniff"},
    )


async def dashboard(request: web.Request) -> web.StreamResponse:
    """Answer the dashboard: queues, messages, channels, schedules and processes, live. Speaks this API alone."""
    return sent(request, _DASHBOARD, _DASHBOARD_CSP)


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
