"""The client against a server that does what servers do: close idle connections, refuse early, break off."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from mqservice.client import ApiProblem, BadUrl, Client, Event, NoAnswer, parse_events, path_of

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
TOO_LARGE = (
    b"HTTP/1.1 413 Too Large\r\nContent-Type: application/problem+json\r\nRetry-After: 7\r\nContent-Length: 69\r\n\r\n"
    b'{"type":"/problems/body-too-large","detail":"it is over","limit": 10}'
)


class Server:
    """Serves one connection after the other; each answers what its script says, then closes."""

    def __init__(self, connections: Sequence[Sequence[bytes]]) -> None:
        self._script = connections
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for answers in self._script:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                for answer in answers:
                    self.requests.append(connection.recv(65_536))
                    connection.sendall(answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def begin(*connections: Sequence[bytes]) -> Server:
        servers.append(Server(connections))
        return servers[-1]

    yield begin
    for server in servers:
        server.close()


def key(number: int) -> dict[str, str]:
    return {"Idempotency-Key": f"k-{number}"}


@pytest.mark.parametrize(("method", "headers"), [("GET", {}), ("DELETE", {}), ("POST", key(1))])
def test_call_when_the_idle_connection_was_closed_then_asks_again(
    serve: Serve, method: str, headers: dict[str, str]
) -> None:
    server = serve([OK], [OK])
    with Client(server.url) as client:
        client.call("GET", "/first")
        assert client.call(method, "/second", headers=headers).json == {}
    assert [request.split()[1] for request in server.requests] == [b"/first", b"/second"]


def test_call_when_a_send_without_a_key_may_have_arrived_then_it_is_not_repeated(serve: Serve) -> None:
    server = serve([OK], [OK])
    with Client(server.url) as client:
        client.call("GET", "/first")
        with pytest.raises(NoAnswer, match="no service at"):
            client.call("POST", "/second", body=b"1")
    assert len(server.requests) == 1


def test_call_when_a_new_connection_breaks_off_then_no_answer(serve: Serve) -> None:
    server = serve([b""], [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"], [b"not HTTP\r\n\r\n"])
    for _ in range(3):
        with Client(server.url) as client, pytest.raises(NoAnswer):
            client.call("GET", "/")


def test_call_when_refused_before_the_body_is_through_then_the_refusal_is_read(serve: Serve) -> None:
    server = serve([TOO_LARGE])
    with Client(server.url) as client, pytest.raises((ApiProblem, NoAnswer)) as refused:
        client.call("POST", "/", body=b"x" * 30_000)
    assert isinstance(refused.value, ApiProblem)
    assert (refused.value.status, refused.value.retry_after_s) == (413, 7.0)


def test_call_when_asked_then_prefix_query_and_token_go_along(serve: Serve) -> None:
    server = serve([OK])
    with Client(f"{server.url}/mq/", "s3cret") as client:
        client.call("GET", path_of("v1", "queues", "a/b c"), {"x": "1&2", "none": None})
    (request,) = server.requests
    assert request.startswith(b"GET /mq/v1/queues/a%2Fb%20c?x=1%262 HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer s3cret\r\n" in request


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
def test_events_when_the_stream_falls_silent_then_no_answer_after_that_long(serve: Serve, connection: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: %s\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n" % connection
    server = serve([head, b""])
    with Client(server.url) as client:
        began_at = time.monotonic()
        events = client.events("/", silence_s=0.2)
        assert next(events) == Event("", "message", "1")
        with pytest.raises(NoAnswer, match="did not answer in time"):
            next(events)
        assert 0.2 <= time.monotonic() - began_at < 3


@pytest.mark.parametrize("url", ["", "localhost:5000", "http://[::1", "https://", "unix:///a", "http://a/#b"])
def test_client_when_the_address_is_none_then_bad_url(url: str) -> None:
    with pytest.raises(BadUrl, match="is no address of a service"):
        Client(url)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_when_they_come_in_any_pieces_then_the_same(size: int) -> None:
    stream = (
        b": comment\r\n\r\nretry: 100\n\nid: 1\nevent: a\ndata:x\ndata:  y\n\n"
        b"data\n\nevent: lost\n\nid\ndata: z\r\n\r\ndata: \xc3\xbc\n\ndata: unfinished\n"
    )
    pieces = (stream[start : start + size] for start in range(0, len(stream), size))
    assert list(parse_events(pieces)) == [
        Event("1", "a", "x\n y"),
        Event("1", "message", ""),
        Event("", "message", "z"),
        Event("", "message", "ü"),
    ]
