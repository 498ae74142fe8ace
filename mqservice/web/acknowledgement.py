"""The answer to a send: head and body as one string, written at once.

For each answer aiohttp makes a mapping of headers, completes it and serialises it: 17 of the 40 µs that a bare
handler costs. An acknowledgement has always the same headers, but for the values of four.
"""

from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time

from mqservice.web.edge import JSON_HEADERS, new_request_id

_HEAD: Final = "HTTP/1.1 202 Accepted\r\n" + "".join(f"{name}: {value}\r\n" for name, value in JSON_HEADERS.items())


def is_plain(request: web.Request) -> bool:
    """Tell whether a request wants no more than this: HTTP/1.1 that stays open, no wait, no answer to be kept."""
    headers = request.headers
    return (
        request.version == HttpVersion11
        and request.keep_alive
        and "Prefer" not in headers
        and "Idempotency-Key" not in headers
    )


class Acknowledgement(web.StreamResponse):
    """202 with a JSON body, for a request that `is_plain`."""

    def __init__(self, location: str, body: bytes) -> None:
        """`location` must be made of names, which have no line breaks."""
        super().__init__(status=202)
        self._path, self._content = location, body

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write the whole of it. Raises ConnectionError."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        head = (
            f"{_HEAD}Location: {self._path}\r\nX-Request-Id: {new_request_id(request)}\r\n"
            f"Date: {rfc822_formatted_time()}\r\nContent-Length: {len(self._content)}\r\n\r\n"
        )
        transport.write(head.encode("ascii") + self._content)
        if request.protocol.writing_paused:
            await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: it is written."""
