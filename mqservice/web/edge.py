"""What surrounds every handler: request ids, headers of all answers, errors turned into problems.

The only place of the web that catches what nobody foresaw.
"""

import re
import secrets
from itertools import count
from typing import Final

import structlog
from aiohttp import web

from mqservice.errors import MqError, OutOfMemory
from mqservice.web.problems import PROBLEMS, Refusal, problem

log = structlog.get_logger()

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KNOWN: web.RequestKey[str] = web.RequestKey("request_id", str)
_NUMBERS: Final = count(1)
_PROCESS: Final = secrets.token_hex(6)
HEADERS: Final = {
    "Server": "mqservice",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What every answer has. One that is made with them, as hot ones are, is only looked at."""
JSON_HEADERS: Final = {**HEADERS, "Content-Type": "application/json", "Cache-Control": "no-store"}
"""What every answer in JSON has."""
_PAGE_HEADERS: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
"""What only documents need."""
_CODES: Final = {
    404: "not-found",
    405: "method-not-allowed",
    408: "body-timeout",
    413: "body-too-large",
    415: "unsupported-type",
    417: "expectation-failed",
}
"""Problem for what aiohttp itself refuses."""


def request_id(request: web.BaseRequest) -> str:
    """Return the id of a request: the client's when it is sane, else one of ours. The same each time."""
    known = request.get(_KNOWN)
    if known is None:
        known = request[_KNOWN] = new_request_id(request)
    return known


def new_request_id(request: web.BaseRequest) -> str:
    """Return the same for a request whose id nobody has asked for, nor will."""
    offered = request.headers.get("X-Request-Id")
    return offered if offered and _REQUEST_ID.fullmatch(offered) else f"{_PROCESS}-{next(_NUMBERS)}"


def complete_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Add what every answer has, streams included. A handler's own value stays."""
    headers = response.headers
    headers["X-Request-Id"] = request_id(request)
    if headers.get("Server") == HEADERS["Server"]:
        return
    headers["Server"] = HEADERS["Server"]
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if headers.get("Content-Type", "").startswith("text/html"):
        headers.update(_PAGE_HEADERS)
    if request.path.startswith("/v1/"):
        headers.setdefault("Cache-Control", "no-store")


async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    """Complete the headers, as a signal of aiohttp: the only moment that streams have too."""
    complete_headers(request, response)


async def expect(request: web.Request) -> web.StreamResponse | None:
    """Leave `100 Continue` to whoever reads the body, so that a body that is refused is never sent."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        return None
    return problem("expectation-failed", "only 100-continue is known")


def as_problem(request: web.BaseRequest, error: Exception) -> web.Response:
    """Return the answer for what a handler raised. One that nobody foresaw is logged here and answered 500."""
    match error:
        case Refusal():
            return error.response()
        case web.HTTPException():
            return _of_aiohttp(request, error)
        case MqError():
            return _of_ours(request, error)
    return _fault(request, error)


async def nowhere(request: web.Request) -> web.StreamResponse:
    """Answer what no route takes: 405 when one would with another method, else 404."""
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        _, methods = await resource.resolve(request)
        allowed |= methods
    allowed.discard("*")  # that is this one
    error = web.HTTPMethodNotAllowed(request.method, allowed) if allowed else web.HTTPNotFound()
    return as_problem(request, error)


def _of_aiohttp(request: web.BaseRequest, error: web.HTTPException) -> web.Response:
    allow = error.headers.get("Allow")
    code = _CODES.get(error.status, "malformed-request" if error.status < 500 else "internal")
    return problem(code, f"{request.method} {request.path}: {error.reason}", {"Allow": allow} if allow else None)


def _of_ours(request: web.BaseRequest, error: MqError) -> web.Response:
    if error.code not in PROBLEMS:
        return _fault(request, error)
    headers = None
    if PROBLEMS[error.code].status == 503:
        headers = {"Retry-After": "5" if isinstance(error, OutOfMemory) else "1"}
    return problem(error.code, str(error), headers)


def _fault(request: web.BaseRequest, error: Exception) -> web.Response:
    log.error("request failed", method=request.method, path=request.path, request=request_id(request), exc_info=error)
    return problem("internal", f"this is a fault of the service; its log says more of request {request_id(request)}")
