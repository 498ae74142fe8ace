"""HTTP as aiohttp reads it, but for its answer to what is not HTTP, or has no path: a problem as everywhere.

What is not HTTP never reaches the application, what has no path (`OPTIONS *`, `CONNECT`) none of its routes.
"""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import web

from mqservice.web.admission import Admission
from mqservice.web.edge import as_problem, complete_headers
from mqservice.web.problems import problem

log = structlog.get_logger()


_LOOK_S: Final = 10.0
"""How often we look whether a client still reads its answer."""

_LEAST_BYTES: Final = 10 << 10
"""A client that reads less of it between two looks is cut off: nobody's line is that slow, and the answer is memory."""


class Protocol(web.RequestHandler):
    """One connection of a client."""

    __slots__ = ("_admission", "_reader_timer", "_unread_bytes")

    def __init__(self, admission: Admission, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._admission = admission
        self._reader_timer: asyncio.TimerHandle | None = None
        self._unread_bytes = 0

    @property
    def has_asked(self) -> bool:
        """Whether a whole request has ever come."""
        return self._request_count > 0

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered or waiting for it."""
        return self._current_request is None and not self._messages

    def leave(self) -> None:
        """Close the connection."""
        self.force_close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a client in, unless everybody here is being answered and there is no room."""
        super().connection_made(transport)
        if not self._admission.enter(self):
            self.leave()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget a client."""
        self._admission.left(self)
        self._stop_looking()
        super().connection_lost(exc)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on after a pause. aiohttp says so twice a request, paused or not, and then parses nothing once more."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def pause_writing(self) -> None:
        """Note that the client reads slower than we write."""
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        """Note that the client has caught up."""
        self._stop_looking()
        super().resume_writing()

    def _look_again(self) -> None:
        if self.transport is not None:
            self._unread_bytes = self.transport.get_write_buffer_size()
            self._reader_timer = self._loop.call_later(_LOOK_S, self._look_at_reader)

    def _look_at_reader(self) -> None:
        if self.transport is None:
            return
        if self._unread_bytes - self.transport.get_write_buffer_size() < _LEAST_BYTES:
            log.debug("client does not read", unread_bytes=self._unread_bytes)
            self.transport.abort()
        else:
            self._look_again()

    def _stop_looking(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

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

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Send an answer; that of aiohttp itself, to what is for no route, becomes a problem."""
        if isinstance(resp, web.HTTPException):
            resp = as_problem(request, resp)
        return super().finish_response(request, resp, start_time)
