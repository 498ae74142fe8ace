"""Pages made by the server from its own tables: no script, no foreign host, nothing to build."""

from html import escape
from typing import Final

from aiohttp import web

_CSP: Final = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · mqservice</title>
<link rel="stylesheet" href="/static/palette.css">
<link rel="stylesheet" href="/static/docs.css">
<header><p class="name"><a href="/">mqservice</a></p><h1>{title}</h1></header>
<main>{body}</main>
</html>
"""


def page(title: str, body: str) -> web.Response:
    """Return a page; `body` is the HTML of its main part."""
    return web.Response(
        text=_PAGE.format(title=text(title), body=body),
        content_type="text/html",
        headers={"Content-Security-Policy": _CSP, "Cache-Control": "max-age=300"},
    )


def text(plain: str) -> str:
    """Return text as HTML; what stands between backticks as code."""
    parts = escape(plain).split("`")
    if len(parts) % 2 == 0:
        return escape(plain)
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))
