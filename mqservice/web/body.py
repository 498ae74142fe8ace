"""Request bodies: read within their limit and deadline, and understood.

A body that will be refused is refused before it is read: by its length, its encoding, its type.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from aiohttp import web
from msgspec import Raw

from mqservice import jsontext
from mqservice.web.context import HTTP
from mqservice.web.problems import Refusal

FORM: Final = "application/x-www-form-urlencoded"
"""What `curl -d` says of anything."""

_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(\s*;[ -~]*)?")
_TYPE_CHARS: Final = 255
_USUAL: Final = frozenset(("", "application/json", FORM))


SMALL_BYTES: Final = 64 << 10
"""Up to here a body needs no room of its own: nobody is refused a small message because others send large ones."""

ROOM_BYTES: Final = 256 << 20


class Room:
    """What large bodies that are being received or worked on may take up together, in bytes.

    Else a few hundred clients, each of them sending 16 MiB slowly, would take all memory there is.
    """

    def __init__(self) -> None:
        self._left = ROOM_BYTES

    def take(self, bytes_: int) -> None:
        """Take so much until the present request is answered. Raises Refusal."""
        if bytes_ > self._left:
            detail = "too many large bodies are being received at once"
            raise Refusal("too-much-at-once", detail, {"Retry-After": "1"})
        self._left -= bytes_
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(lambda _: self._give_back(bytes_))

    def _give_back(self, bytes_: int) -> None:
        self._left += bytes_


ROOM: web.AppKey[Room] = web.AppKey("room", Room)


class Content(NamedTuple):
    """A body and what it is; `type` is empty for JSON."""

    body: bytes
    type: str


def content_at_hand(request: web.Request) -> Content | None:
    """Return the body of a single message that came with its headers, None when it is still to come. Raises Refusal.

    Nothing is awaited and no deadline set: a sixth of a send's time.
    """
    if not request.content.is_eof():
        return None
    kind = content_type(request)
    return _content(request, kind, _read_now(request, request.app[HTTP].body_limit))


async def read_content(request: web.Request) -> Content:
    """Return the body of a single message. Raises Refusal."""
    kind = content_type(request)
    return _content(request, kind, await read(request, request.app[HTTP].body_limit))


def _content(request: web.Request, kind: str, body: bytes) -> Content:
    if is_json(kind):
        check_json(body)
        return Content(body, "")
    if kind in ("", FORM):
        return _guessed(body, kind)
    return Content(body, request.headers["Content-Type"])


async def read(request: web.Request, limit: int) -> bytes:
    """Return the whole body. Raises Refusal: over `limit` bytes, too slow, compressed."""
    if not request.content.is_eof():
        return b"".join([chunk async for chunk in chunks(request, limit)])
    return _read_now(request, limit)


def _read_now(request: web.Request, limit: int) -> bytes:
    """Return a body that came with its headers. Raises Refusal."""
    _check_encoding(request)
    body = request.content.read_nowait()
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def chunks(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    """Yield the body as it comes in. Raises Refusal as `read`."""
    _check_encoding(request)
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # or aiohttp believes that the answer has begun
    end = asyncio.get_running_loop().time() + request.app[HTTP].body_deadline_s
    size = 0
    while chunk := await _next(request, end):
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        if size > SMALL_BYTES:
            request.app[ROOM].take(len(chunk))
        yield chunk


def content_type(request: web.Request) -> str:
    """Return type and subtype of the body in lower case, "" when there is no Content-Type. Raises Refusal."""
    given = request.headers.get("Content-Type", "")
    if given in _USUAL:
        return given
    if given and not (len(given) <= _TYPE_CHARS and _TYPE.fullmatch(given)):
        raise Refusal("unsupported-type", f"Content-Type {given[:60]!r} is not a media type")
    return given.partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Tell whether a content type is one of JSON's."""
    return kind in ("application/json", "text/json") or kind.endswith("+json")


def check_json(body: bytes | Raw) -> None:
    """Raise Refusal for what a handler could not decode."""
    if fault := jsontext.fault(body):
        raise Refusal("malformed-json", fault)


def _guessed(body: bytes, kind: str) -> Content:
    """JSON when it is; else the text that `curl -d` was given, or bytes of which nobody said what they are."""
    fault = jsontext.fault(body)
    if not fault:
        return Content(body, "")
    if kind == FORM and is_text(body):
        return Content(body, "text/plain")
    if not body:
        raise Refusal("malformed-json", fault)
    return Content(body, "application/octet-stream")


def is_text(body: bytes) -> bool:
    """Tell whether it is UTF-8."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_encoding(request: web.Request) -> None:
    encoding = request.headers.get("Content-Encoding")
    if encoding is not None and encoding.lower() != "identity":
        raise Refusal("unsupported-encoding", f"Content-Encoding {encoding[:60]!r}: bodies come as they are")


async def _next(request: web.Request, end: float) -> bytes:
    try:
        async with asyncio.timeout_at(end):
            return await request.content.readany()
    except TimeoutError:
        deadline_s = request.app[HTTP].body_deadline_s
        raise Refusal("body-timeout", f"the body did not arrive within {deadline_s:g} s") from None


def _too_large(limit: int) -> Refusal:
    return Refusal("body-too-large", f"the body is over {limit} bytes", limit=limit)
