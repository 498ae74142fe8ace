"""Requests that can be sent twice and are done once: the header Idempotency-Key, after the IETF draft.

The ids of the messages that such a request sends follow from its key. So the message is not doubled either when this
process dies between the send and the storing of the answer.
"""

import contextlib
import hashlib
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable
from itertools import count
from typing import Final

from aiohttp import web

from mqservice.broker import new_id
from mqservice.errors import MqError
from mqservice.idempotency import Mismatch, Running, Stored
from mqservice.web.access import caller
from mqservice.web.context import CONTEXT
from mqservice.web.problems import Refusal

NewId = Callable[[], str]
Action = Callable[[NewId], Awaitable[web.Response]]

_KEY: Final = re.compile(r"[!-~]{1,255}")
_QUOTED: Final = re.compile(r'"(.+)"')
_KEPT_HEADERS: Final = ("Content-Type", "Location", "Retry-After")


async def once(request: web.Request, body: Iterable[bytes], act: Action) -> web.Response:
    """Answer with what `act` answers, or with what it answered to the same request before.

    `act` gets what makes the ids of new messages. `body` is the request's, in pieces. Raises Refusal, and what `act`
    raises.
    """
    key = _key(request)
    if not key:
        return await act(new_id)
    fingerprint = _fingerprint(request, body)
    match await request.app[CONTEXT].idempotency.begin(key, fingerprint):
        case Stored(status, headers, stored):
            headers = {**headers, "Idempotency-Replayed": "true"}
            return web.Response(status=status, headers=headers, body=stored)
        case Mismatch():
            raise Refusal("key-reused", "this Idempotency-Key was used for another request")
        case Running():
            detail = "the first request with this Idempotency-Key has not been answered yet"
            raise Refusal("request-running", detail, {"Retry-After": "1"})
    return await _first(request, key, fingerprint, act)


async def _first(request: web.Request, key: str, fingerprint: str, act: Action) -> web.Response:
    idempotency = request.app[CONTEXT].idempotency
    response = None
    try:
        try:
            response = await act(_ids(key, fingerprint))
        except Refusal as refusal:
            response = refusal.response()
    finally:  # the answer is right even when Redis cannot keep it: the ids are the same the next time
        with contextlib.suppress(MqError):
            if response is None or response.status >= 500 or response.status == 429:
                await idempotency.forget(key, fingerprint)
            else:
                headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
                await idempotency.finish(key, fingerprint, response.status, headers, _body(response))
    return response


def _body(response: web.Response) -> bytes:
    body = response.body
    return body if isinstance(body, bytes) else b""


def _key(request: web.Request) -> str:
    """Return the key, with or without the quotes that the draft wants; "" when there is none. Raises Refusal."""
    if "Idempotency-Key" not in request.headers:
        return ""
    given = request.headers.getall("Idempotency-Key")
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise Refusal("invalid-parameter", "Idempotency-Key is one of 1 to 255 visible ASCII characters")
    quoted = _QUOTED.fullmatch(given[0])
    key = quoted[1] if quoted else given[0]
    # Each token has keys of its own: the answer that one got may hold what another may not read.
    name = caller(request).name
    return key if name is None else f"{name} {key}"


def _fingerprint(request: web.Request, body: Iterable[bytes]) -> str:
    digest = hashlib.sha256(f"{request.method} {request.rel_url.raw_path_qs}\n".encode())
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()


def _ids(key: str, fingerprint: str) -> NewId:
    numbers = count()
    return lambda: str(uuid.uuid5(uuid.NAMESPACE_URL, f"{key} {fingerprint} {next(numbers)}"))
