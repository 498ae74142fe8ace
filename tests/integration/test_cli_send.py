"""`mqservice send`: bodies, options, streams from a pipe."""

import json
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.commands import ask, lines, mq, start
from tests.processes import Served, serving


def stored(served: Served, queue: str, message_id: str) -> dict[str, object]:
    view: dict[str, object] = ask(served, "GET", f"/v1/queues/{queue}/messages/{message_id}?wait=5")
    return view


@pytest.mark.parametrize(
    ("argument", "stdin", "body", "kind"),
    [
        ('{"a": [1, "ü"]}', "", {"a": [1, "ü"]}, ""),
        ("0.5", "", 0.5, ""),
        ("hello you", "", "hello you", "text/plain; charset=utf-8"),
        ("", "", "", "text/plain; charset=utf-8"),
        ("NaN", "", "NaN", "text/plain; charset=utf-8"),
        ("@@you", "", "@you", "text/plain; charset=utf-8"),
        ("-", "[1,\n2]", [1, 2], ""),
    ],
)
def test_send_when_given_a_body_then_json_stays_json_and_the_rest_is_text(
    served: Served, argument: str, stdin: str, body: object, kind: str
) -> None:
    sent = mq(served.url, "send", "echo", argument, stdin=stdin)
    assert sent.returncode == 0, sent.stderr
    view = stored(served, "echo", sent.stdout.strip())
    assert (view["body"], view.get("content_type", "")) == (body, kind)


def test_send_when_given_a_file_then_its_bytes(served: Served, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"\xff\x00")
    sent = mq(served.url, "send", "echo", f"@{tmp_path}/body", "--wait", "5s", "--json")
    assert json.loads(sent.stdout)["content_type"] == "application/octet-stream"
    assert json.loads(sent.stdout)["result"] == "ff00"
    missing = mq(served.url, "send", "echo", "@/nowhere")
    assert (missing.returncode, missing.stderr) == (2, "Error: cannot read /nowhere: No such file or directory\n")


def test_send_when_waited_for_then_the_result_is_printed(served: Served) -> None:
    sent = mq(served.url, "send", "echo", '{"a": 1}', "--wait", "5s")
    assert (sent.returncode, sent.stdout, sent.stderr) == (0, '{"a":1}\n', "")


def test_send_when_waited_for_and_the_handler_fails_then_exit_1_and_says_why(served: Served) -> None:
    sent = mq(served.url, "send", "emails", "{}", "--id", "no-address", "--wait", "5s")
    assert (sent.returncode, sent.stdout) == (1, "")
    assert sent.stderr == "Error: message no-address of emails is dead (failed): ValueError: nobody to send it to\n"


def test_send_when_the_result_is_late_then_exit_5_after_the_wait(served: Served) -> None:
    began_at = time.monotonic()
    sent = mq(served.url, "send", "sleep", "30", "--id", "late", "--wait", "300ms", "--json")
    assert sent.returncode == 5
    assert "still active" in sent.stderr
    assert json.loads(sent.stdout)["state"] == "active"
    assert time.monotonic() - began_at < 5


def test_send_when_given_options_then_the_service_has_them(served: Served) -> None:
    options = ("--delay", "1h", "--ttl", "2h", "--attempts", "3", "--retry", "500ms", "--id", "o-1", "--unique", "k-1")
    sent = mq(served.url, "send", "echo", "1", *options, "--json")
    assert json.loads(sent.stdout) == {"id": "o-1", "state": "scheduled"}
    assert stored(served, "echo", "o-1")["state"] == "scheduled"
    again = mq(served.url, "send", "echo", "2", "--unique", "k-1")
    assert again.returncode == 1
    assert again.stderr == "Error: message o-1 has this unique key (not-unique)\n"
    assert mq(served.url, "send", "echo", "1", "--at", "2030-01-31T08:00:00Z").returncode == 2  # over a year away


def test_send_when_given_headers_then_they_go_with_the_request(served: Served) -> None:
    sent = mq(served.url, "send", "echo", "7", "--header", "Content-Type: text/x-digit", "--wait", "5", "--json")
    assert json.loads(sent.stdout)["content_type"] == "text/x-digit"
    key = ("--header", "Idempotency-Key: one-and-the-same")
    first, second = (mq(served.url, "send", "echo", "1", *key) for _ in range(2))
    assert first.stdout == second.stdout
    for wrong in ("nonsense", "X: a\r\nY: b", "X: ü"):
        assert mq(served.url, "send", "echo", "1", "--header", wrong).returncode == 2


def test_send_when_counted_then_so_many(served: Served) -> None:
    sent = mq(served.url, "send", "sleep", "0", "--count", "2100", "--delay", "1h", "--json")
    assert sent.returncode == 0, sent.stderr
    ids = {each["id"] for each in lines(sent)}
    assert len(ids) == 2100
    assert sent.stderr.startswith("sent 2,100 messages in ")
    assert stored(served, "sleep", next(iter(ids)))["body"] == 0


def test_send_when_text_is_counted_then_json_strings(served: Served) -> None:
    sent = mq(served.url, "send", "echo", "hello", "--count", "2", "--delay", "1h")
    assert [stored(served, "echo", each)["body"] for each in sent.stdout.split()] == ["hello", "hello"]


def test_send_when_lines_come_from_a_pipe_then_each_is_a_message(served: Served) -> None:
    sent = mq(served.url, "send", "echo", "--ttl", "1h", stdin='{"n": 1}\n\n  "two"\r\n[3]')
    assert sent.returncode == 0, sent.stderr
    ids = sent.stdout.split()
    assert [stored(served, "echo", each)["result"] for each in ids] == [{"n": 1}, "two", [3]]
    assert all("expires_at" in stored(served, "echo", each) for each in ids)


def test_send_when_lines_are_items_then_each_has_its_own_options(served: Served) -> None:
    sent = mq(served.url, "send", "echo", "--items", stdin='{"body": 1, "id": "i-1"}\n{"body": 2, "delay": "1h"}\n')
    first, second = sent.stdout.split()
    assert first == "i-1"
    assert stored(served, "echo", second)["state"] == "scheduled"


def test_send_when_lines_trickle_in_then_they_are_sent_before_the_end(served: Served) -> None:
    with start(served.url, "send", "echo") as sending:
        assert sending.stdin is not None
        assert sending.stdout is not None
        for number in (1, 2):
            sending.stdin.write(f"{number}\n")
            sending.stdin.flush()
            assert stored(served, "echo", sending.stdout.readline().strip())["result"] == number
        sending.stdin.close()
        assert sending.wait(10) == 0


def test_send_when_a_line_is_no_json_then_what_came_before_is_sent_and_the_line_is_named(served: Served) -> None:
    sent = mq(served.url, "send", "echo", stdin='1\n2\n{"body": 1},"delay":9\n4\n')
    assert sent.returncode == 1
    assert sent.stderr == "Error: line 3 is not JSON; 2 messages were sent before\n"
    assert len(sent.stdout.split()) == 2


def test_send_when_an_item_is_refused_then_exit_2_and_its_batch_is_named(served: Served) -> None:
    sent = mq(served.url, "send", "echo", "--items", stdin='{"body": 1}\n{"bdoy": 2}\n')
    assert (sent.returncode, sent.stdout) == (2, "")
    assert "in the batch that begins with line 1: line 2: " in sent.stderr
    assert "0 messages were sent before" in sent.stderr


def test_send_when_the_pipe_is_empty_then_nothing_and_exit_0(served: Served) -> None:
    sent = mq(served.url, "send", "echo")
    assert (sent.returncode, sent.stdout) == (0, "")


def test_send_when_the_queue_is_full_then_tries_again_until_there_is_room(other_url: str) -> None:
    with serving(other_url, "--no-consumers", MQSERVICE_QUEUES__SPARE__MAX_LENGTH="3") as small:
        small.started()
        assert mq(small.url, "send", "spare", stdin="1\n2\n3\n").returncode == 0
        refused = mq(small.url, "send", "spare", "--patience", "0s", stdin="4\n")
        assert refused.returncode == 1
        assert "(queue-full); 0 messages were sent before" in refused.stderr
        with start(small.url, "send", "spare") as sending:
            assert sending.stdin is not None
            assert sending.stderr is not None
            sending.stdin.write("5\n")
            sending.stdin.close()
            assert sending.stderr.readline().endswith("(queue-full); trying again\n")
            ask(small, "DELETE", "/v1/queues/spare/messages?state=ready")
            assert sending.wait(20) == 0
        assert ask(small, "GET", "/v1/queues/spare")["counts"]["ready"] == 1


def test_send_when_an_answer_is_lost_then_the_batch_is_sent_again_and_not_doubled(served: Served) -> None:
    before = ask(served, "GET", "/v1/queues/echo")["counts"]["done"]
    with LossyProxy(served.url) as proxy:
        sent = mq(proxy.url, "send", "echo", stdin="1\n2\n3\n")
    assert (sent.returncode, len(sent.stdout.split())) == (0, 3), sent.stderr
    assert "trying again" in sent.stderr
    assert proxy.lost == 1
    assert [stored(served, "echo", each)["result"] for each in sent.stdout.split()] == [1, 2, 3]
    assert ask(served, "GET", "/v1/queues/echo")["counts"]["done"] - before == 3


class LossyProxy:
    """Passes each connection on, but loses the first answer."""

    def __init__(self, url: str) -> None:
        self._target = ("127.0.0.1", int(url.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.lost = 0

    def __enter__(self) -> "LossyProxy":
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.create_connection(self._target) as service:
                while request := self._request(client):
                    service.sendall(request)
                    answer = service.recv(65_536)
                    if not self.lost:
                        self.lost += 1
                        break
                    client.sendall(answer)

    @staticmethod
    def _request(client: socket.socket) -> bytes:
        """One small request, head and body, which come in one or two pieces."""
        head = client.recv(65_536)
        return head + client.recv(65_536) if head.endswith(b"\r\n\r\n") and b"Content-Length: " in head else head


@pytest.mark.parametrize(
    "args",
    [
        ("--wait", "soon", "1"),
        ("--delay", "2y", "1"),
        ("--count", "2", "--wait", "1s", "1"),
        ("--count", "2", "--id", "a", "1"),
        ("--count", "0", "1"),
        ("--items", "1"),
        ("--items", "--delay", "1s"),
        ("--count", "2"),
        ("--unique", "a"),
    ],
)
def test_send_when_options_make_no_sense_then_exit_2(served: Served, args: tuple[str, ...]) -> None:
    sent = mq(served.url, "send", "echo", *args)
    assert sent.returncode == 2, sent.stdout
    assert sent.stdout == ""


def test_send_when_the_queue_keeps_no_records_then_there_is_no_id(other_url: str) -> None:
    with serving(other_url, "--no-consumers", MQSERVICE_QUEUES__ONCE__DELIVERY="at-most-once") as running:
        running.started()
        sent = mq(running.url, "send", "once", "7")
        assert (sent.returncode, sent.stdout) == (0, "\n")
