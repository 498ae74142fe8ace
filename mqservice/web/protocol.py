"""HTTP as aiohttp reads it, but for its answer to what is not HTTP: a problem as everywhere.

Such a request never reaches the application, so neither its middleware nor its signals see it.
"""

from http import HTTPStatus

import structlog
from aiohttp import web

from mqservice.web.edge import complete_headers
from mqservice.web.problems import problem

log = structlog.get_logger()


class Protocol(web.RequestHandler):
    """One connection of a client."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that cannot be read, and close the connection."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("request failed", error=repr(exc))
            response = problem("internal", "this is a fault of the service")
        else:
            lines = (message or "").strip().splitlines() or ["this is not HTTP"]
            log.debug("unreadable request", error=lines[0][:200])
            response = problem("malformed-request", lines[0][:200].rstrip(":"))
        complete_headers(request, response)
        response.force_close()
        return response
