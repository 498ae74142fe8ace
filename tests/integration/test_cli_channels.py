"""`mqservice publish` and `tail`: a stream that breaks off is taken up where it ended."""

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from tests.commands import lines, mq, start
from tests.processes import Served, serving
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


def event(number: int) -> bytes:
    """A message as the service sends it."""
    return b'id: %d-0\nevent: message\ndata: {"channel":"prices.a","body":%d}\n\n' % (number, number)


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
            [b": hi\n\nid: 1-0\nevent: message\nda", b'ta: {"channel":"prices.a","body":{"a":1}}\n\n', b"id: 2-0\nda"],
            None,
            [event(2)],
            [b'id: 8-0\nevent: gap\ndata: {"missed":5000}\n\n', event(9)],
            [b'event: gap\ndata: {"missed":null}\n\n', event(10), b"hang"],
        ]
    )
    tailed = mq(url, "tail", "prices.a", "--limit", "4")
    assert tailed.returncode == 0, tailed.stderr
    assert tailed.stdout == '{"a":1}\n2\n9\n10\n'
    path = "/v1/channels/prices.a/events"
    assert Streams.asked == [(path, None), (path, "1-0"), (path, "1-0"), (path, "2-0"), (path, "9-0")]
    said = tailed.stderr.splitlines()
    lost_and_found = ["connection lost, trying again", "connected again"]
    assert said == [
        *(lost_and_found * 2),
        "gap: 5,000 messages were published meanwhile, and are not kept any more",
        *lost_and_found,
        "gap: some messages may have been published meanwhile, and are not kept any more",
    ]


def test_tail_when_a_pattern_is_followed_then_each_line_names_its_channel(streams: Script) -> None:
    tailed = mq(streams([[event(1), b"hang"]]), "tail", "prices.*", "--limit", "1")
    assert tailed.stdout == "prices.a 1\n"
    assert Streams.asked == [("/v1/channels/prices.%2A/events", None)]


def test_tail_when_json_is_wanted_then_ndjson_with_ids_and_gaps(streams: Script) -> None:
    url = streams([[b'id: 9-0\nevent: gap\ndata: {"missed":5}\n\n', event(10), event(11), b"hang"]])
    tailed = mq(url, "tail", "c", "--json", "--limit", "2", "--after", "4")
    assert lines(tailed) == [
        {"id": "9-0", "event": "gap", "missed": 5},
        {"id": "10-0", "event": "message", "channel": "prices.a", "body": 10},
        {"id": "11-0", "event": "message", "channel": "prices.a", "body": 11},
    ]
    assert Streams.asked[0][1] == "4"


def test_tail_when_an_event_comes_then_it_is_printed_at_once(streams: Script) -> None:
    with start(streams([[event(7), b"hang"]]), "tail", "c") as tailing:
        assert tailing.stdout is not None
        assert tailing.stdout.readline() == "7\n"
        tailing.terminate()


def test_tail_when_the_service_is_restarted_then_no_message_is_missed(other_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    args, kept = ("--app", "tests.cli_app:service", "--port", port), {"MQSERVICE_CHANNELS__NEWS__HISTORY": "1000"}
    address = f"http://127.0.0.1:{port}"
    with serving(other_url, *args, **kept) as first:
        first.started()
        with start(address, "tail", "news") as tailing:
            got: list[int] = []
            reader = threading.Thread(target=lambda: [got.append(int(line)) for line in tailing.stdout or ()])
            reader.start()
            wait_for(lambda: mq(address, "publish", "news", "0") and got)
            for number in range(1, 11):
                mq(address, "publish", "news", str(number))
            first.signal(signal.SIGTERM)
            assert first.exit_code() == 0
            with serving(other_url, *args, **kept) as second:
                second.started()
                for number in range(11, 31):
                    mq(address, "publish", "news", str(number))
                wait_for(lambda: got[-1] == 30, 15)
            tailing.terminate()
            reader.join(5)
    assert [number for number in got if number] == list(range(1, 31))


def test_tail_when_refused_from_the_first_then_ends(streams: Script, served: Served) -> None:
    assert mq(streams([None]), "tail", "c").returncode == 3
    assert mq(served.url, "tail", "no name").returncode == 2
