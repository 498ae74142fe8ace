"""Errors as RFC 9457 problems: one shape, a stable type, never a traceback."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import structlog
from aiohttp import web

from mqservice.errors import InvalidName, MqError, OutOfMemory, Unavailable
from mqservice.message import JSON

log = structlog.get_logger()

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STATUS: tuple[tuple[type[MqError], int], ...] = ((Unavailable, 503), (InvalidName, 400))


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return a problem document of `type` `/problems/<code>`."""
    body = {
        "type": f"/problems/{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return web.Response(body=JSON.encode(body), status=status, content_type="application/problem+json", headers=headers)


@web.middleware
async def as_problems(request: web.Request, handler: Next) -> web.StreamResponse:
    """Turn every error into a problem. The edge where an unforeseen one is logged and answered 500."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        allow = error.headers.get("Allow")
        code = error.reason.lower().replace(" ", "-")
        return problem(
            error.status,
            code,
            f"{request.method} {request.path}: {error.reason}",
            {"Allow": allow} if allow else None,
        )
    except MqError as error:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        wait = {"Retry-After": "5" if isinstance(error, OutOfMemory) else "1"} if status == 503 else None
        return problem(status, error.code, str(error), wait)
    except Exception as error:
        log.error("request failed", method=request.method, path=request.path, exc_info=error)
        return problem(500, "internal", "this is a fault of the service; its log says more")
