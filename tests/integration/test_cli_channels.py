"""`mqservice publish` and `tail`: a stream that breaks off is taken up where it ended."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from mqservice.client import Event, parse_events
from tests.commands import lines, mq, start
from tests.processes import Served
from tests.waiting import wait_for


class Streams(BaseHTTPRequestHandler):
    """Ends each stream after what `script` holds for it; None: refuses with 503, "hang": keeps it open."""

    protocol_version = "HTTP/1.1"
    script: ClassVar[list[list[bytes] | None]] = []
    asked: ClassVar[list[tuple[str, str | None]]] = []
    over: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        number = len(self.asked)
        self.asked.append((self.path, self.headers["Last-Event-ID"]))
        pieces = self.script[number] if number < len(self.script) else []
        if pieces is None:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            if piece == b"hang":
                self.over.wait(30)
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


Script = Callable[[list[list[bytes] | None]], str]


@pytest.fixture
def streams() -> Iterator[Script]:
    """A server whose streams go as told; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Streams)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()

    def play(script: list[list[bytes] | None]) -> str:
        Streams.script, Streams.asked = script, []
        Streams.over.clear()
        return f"http://127.0.0.1:{server.server_port}"

    yield play
    Streams.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_publish_when_somebody_listens_then_says_how_many(served: Served) -> None:
    published = mq(served.url, "publish", "pubsub", "7")
    assert (published.returncode, published.stdout, published.stderr) == (0, "1\n", "")
    assert json.loads(mq(served.url, "publish", "silence", "hello", "--json").stdout)["receivers"] == 0
    assert mq(served.url, "publish", "no name", "1").returncode == 2
    wait_for(lambda: "Task get 7" in served.out)


def test_tail_when_the_stream_breaks_then_it_resumes_after_the_last_event(streams: Script) -> None:
    url = streams(
        [
            [b": hello\n\nid: 1\nevent: message\nda", b'ta: {"a": 1}\n\nid: 2\ndata: 2\n\nid: 3\ndata: cut o'],
            None,
            [b"id: 3\r\ndata: 3\r\n\r\n"],
            [b'id: 9\nevent: gap\ndata: {"missed": 5}\n\nid: 10\ndata: 10\n\n', b"hang"],
        ]
    )
    tailed = mq(url, "tail", "prices.*", "--limit", "4")
    assert tailed.returncode == 0, tailed.stderr
    assert tailed.stdout == '{"a": 1}\n2\n3\n10\n'
    path = "/v1/channels/prices.%2A/events"
    assert Streams.asked == [(path, None), (path, "2"), (path, "2"), (path, "3")]
    said = tailed.stderr.splitlines()
    assert said == [
        "connection lost, trying again",
        "connected again",
        "connection lost, trying again",
        "connected again",
        'gap: {"missed": 5}',
    ]


def test_tail_when_json_is_wanted_then_ndjson_with_ids_and_gaps(streams: Script) -> None:
    url = streams([[b'id: 9\nevent: gap\ndata: {"missed": 5}\n\nid: 10\ndata: {"a": [1]}\n\ndata: text\n\n', b"hang"]])
    tailed = mq(url, "tail", "c", "--json", "--limit", "2", "--after", "4")
    assert lines(tailed) == [
        {"id": "9", "event": "gap", "data": {"missed": 5}},
        {"id": "10", "event": "message", "data": {"a": [1]}},
        {"id": "10", "event": "message", "data": "text"},
    ]
    assert Streams.asked[0][1] == "4"


def test_tail_when_an_event_comes_then_it_is_printed_at_once(streams: Script) -> None:
    with start(streams([[b"data: now\n\n", b"hang"]]), "tail", "c") as tailing:
        assert tailing.stdout is not None
        assert tailing.stdout.readline() == "now\n"
        tailing.terminate()


def test_tail_when_refused_from_the_first_then_ends(streams: Script, served: Served) -> None:
    assert mq(streams([None]), "tail", "c").returncode == 3
    assert mq(served.url, "tail", "no name").returncode in (2, 4)


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
