"""The files of the pages: style sheets, the dashboard's modules and words. Read once, when this module is imported.

A browser keeps each file and asks whether it has changed: an answer without a body, so that no page is ever made of
files of two versions.
"""

import gzip
import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

from aiohttp import web

from mqservice.web.problems import Refusal

_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
}
"""Suffix → media type. Others, such as licences, are shipped but not served."""


class Asset(NamedTuple):
    """One file, as it is and compressed."""

    body: bytes
    packed: bytes
    media_type: str
    etag: str


def _asset(body: bytes, media_type: str) -> Asset:
    return Asset(body, gzip.compress(body, 9, mtime=0), media_type, hashlib.sha256(body).hexdigest()[:24])


def _read(directory: Traversable, prefix: str = "") -> dict[str, Asset]:
    found: dict[str, Asset] = {}
    for entry in directory.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            found |= _read(entry, f"{name}/")
        elif media_type := _TYPES.get("." + entry.name.rpartition(".")[2]):
            found[name] = _asset(entry.read_bytes(), media_type)
    return found


ASSETS: Final = _read(files("mqservice.web") / "static")
"""Path below /static/ → file."""


async def static(request: web.Request) -> web.StreamResponse:
    """Answer a file of the pages: a style sheet, a module, a dictionary."""
    name = request.match_info["file"]
    if name not in ASSETS:
        raise Refusal("not-found", f"no file is called {name[:100]!r}")
    return sent(request, ASSETS[name])


def sent(request: web.Request, asset: Asset, policy: str = "") -> web.StreamResponse:
    """Return a file, compressed where that is accepted; nothing where the browser has it. `policy`: its CSP."""
    headers = {"Cache-Control": "no-cache", "ETag": f'"{asset.etag}"', "Vary": "Accept-Encoding"}
    if policy:
        headers["Content-Security-Policy"] = policy
    if any(tag.value == asset.etag for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    body = asset.body
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"], body = "gzip", asset.packed
    return web.Response(body=body, content_type=asset.media_type, charset="utf-8", headers=headers)
