"""A client of the HTTP API, as the command line uses it: one connection, one request at a time, blocking.

Over http.client, which is imported in 20 ms where aiohttp takes 130: most commands send one request and end.
Not for handlers and not for use on an event loop.
"""

import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from mqservice.errors import MqError

_TIMEOUT_S: Final = 10.0
_GONE: Final = (BrokenPipeError, ConnectionResetError)
_TEXT_CHARS: Final = 500


class BadUrl(MqError):
    """The address of the service is not one: http:// or https://, a host, perhaps a port and a path."""

    code = "bad-url"


class NoAnswer(MqError):
    """The service cannot be reached, or broke off. What was asked may or may not have happened."""

    code = "no-answer"


class ApiProblem(MqError):
    """The service answered with an error. `str()` is one readable line."""

    code = "api-problem"

    def __init__(self, status: int, kind: str, text: str, retry_after_s: float, members: Mapping[str, Any]) -> None:
        super().__init__(f"{text} ({kind})" if kind else text)
        self.status = status
        self.kind = kind
        """The code of the problem, such as `no-such-message`; empty when no problem document came."""
        self.retry_after_s = retry_after_s
        """What Retry-After says; 0 without one."""
        self.members = members
        """All of the problem document."""


class Answer(NamedTuple):
    """What came back, with a status below 400."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON. Raises NoAnswer when it is none: then something else listens there."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise NoAnswer("what answers there does not speak this API") from None


class Event(NamedTuple):
    """One server-sent event."""

    id: str
    name: str
    data: str


class Client:
    """A connection to one service, opened with the first request. Raises BadUrl."""

    def __init__(self, url: str, token: str = "") -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise BadUrl(f"{url!r} is no address of a service: {error}") from None
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
            raise BadUrl(f"{url!r} is no address of a service: expected such as http://localhost:5000")
        self.url, self._token = url.rstrip("/"), token
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(host, port, timeout=_TIMEOUT_S)
        self._socket: socket.socket | None = None
        """That of the latest answer, which the connection forgets before the answer is read to its end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def another(self) -> "Client":
        """Return a client of the same service with a connection of its own."""
        return Client(self.url, self._token)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> Answer:
        """Ask once and return the answer. Query values of None are left out.

        `timeout_s` bounds each step: the connection, and every silence after it. Raises ApiProblem from status 400 on,
        NoAnswer, ValueError for a header that cannot be sent.
        """
        with self._response(method, path, query, body, headers or {}, timeout_s) as response:
            try:
                return Answer(response.status, response.headers, response.read())
            except (OSError, HTTPException) as error:
                raise self._no_answer(error) from error

    def events(
        self, path: str, query: Mapping[str, Any] | None = None, last_id: str = "", silence_s: float = 60.0
    ) -> Iterator[Event]:
        """Open a stream of server-sent events and return them, until the service ends it. Raises as `call`, at once.

        `last_id` asks for what came after that event. After `silence_s` without a byte the connection is taken for
        dead, and NoAnswer raised.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        response = self._response("GET", path, query, None, headers, _TIMEOUT_S)
        if response.headers.get_content_type() != "text/event-stream":
            self.close()
            raise NoAnswer(f"{path} is no stream of events there")
        if self._socket is not None:
            self._socket.settimeout(silence_s)
        return self._events(response)

    def _events(self, response: HTTPResponse) -> Iterator[Event]:
        with closing(self), response:
            try:
                yield from parse_events(iter(lambda: response.read1(65_536), b""))
            except (OSError, HTTPException) as error:
                raise self._no_answer(error) from error

    def _response(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> HTTPResponse:
        said = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{self._prefix}{path}" + (f"?{urlencode(said)}" if said else "")
        try:
            response = self._exchange(method, target, body, {**self._headers, **headers}, timeout_s)
            if response.status < 400:
                return response
            body = b""
            with response, suppress(OSError, HTTPException):  # the status says enough
                body = response.read()
            raise _problem(response, body)
        except (OSError, HTTPException) as error:
            raise self._no_answer(error) from error

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float
    ) -> HTTPResponse:
        kept = self._connection.sock is not None
        self._patience(timeout_s)
        try:
            with suppress(*_GONE):  # a refusal may come before the body is through: it is read below
                self._connection.request(method, target, body, headers)
            self._socket = self._connection.sock
            return self._connection.getresponse()
        except _GONE:  # http.client's RemoteDisconnected is one
            self.close()
            if not kept or (method == "POST" and "Idempotency-Key" not in headers):
                raise
            # The service closes idle connections; this request may be sent twice without harm.
            return self._exchange(method, target, body, headers, timeout_s)

    def _patience(self, timeout_s: float) -> None:
        self._connection.timeout = timeout_s
        if isinstance(self._connection.sock, socket.socket):
            self._connection.sock.settimeout(timeout_s)

    def _no_answer(self, error: Exception) -> NoAnswer:
        self.close()
        if isinstance(error, TimeoutError):
            why = "it did not answer in time"
        else:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        return NoAnswer(f"no service at {self.url}: {why}")


def path_of(*parts: str) -> str:
    """Return a path of the API from its segments, encoded: `path_of("v1", "queues", name)`."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def parse_events(pieces: Iterator[bytes]) -> Iterator[Event]:
    """Yield the events of a stream that comes in pieces, as the HTML standard has it; comments are passed over."""
    held, data, name, last_id = b"", list[str](), "", ""
    for piece in pieces:
        *lines, held = (held + piece).split(b"\n")
        for line in lines:
            field, _, value = line.removesuffix(b"\r").decode(errors="replace").partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "event":
                name = value
            elif field == "id":
                last_id = value
            elif not field and not value and line in (b"", b"\r"):
                if data:
                    yield Event(last_id, name or "message", "\n".join(data))
                data, name = [], ""


def _problem(response: HTTPResponse, body: bytes) -> ApiProblem:
    document: Any = None
    if response.headers.get_content_type() == "application/problem+json":
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            document = msgspec.json.decode(body)
    members = document if isinstance(document, dict) else {}
    kind = str(members.get("type", "")).rpartition("/")[2]
    text = members.get("detail") or members.get("title") or f"{response.status} {response.reason}"
    after = response.headers.get("Retry-After", "")
    retry_after_s = float(after) if after.isascii() and after.isdigit() else 0.0
    return ApiProblem(response.status, kind, _one_line(str(text)), retry_after_s, members)


def _one_line(text: str) -> str:
    """Return text that does no harm to a terminal."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(line.split())[:_TEXT_CHARS]
