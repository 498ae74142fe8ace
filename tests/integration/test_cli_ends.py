"""How commands end: unreachable, a reader that has gone, Ctrl-C; and how they begin: fast, completed by a shell."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.commands import ask, environ, mq, start
from tests.processes import Served
from tests.waiting import wait_for

NOBODY = "http://127.0.0.1:1"

COMMANDS = (
    ("send", "echo", "1"),
    ("result", "echo", "a"),
    ("get", "echo"),
    ("cancel", "echo", "a"),
    ("replay", "echo", "a"),
    ("publish", "news", "1"),
    ("tail", "news"),
    ("queues",),
    ("queues", "pause", "echo"),
    ("queues", "purge", "echo", "--state", "dead", "--yes"),
    ("schedules",),
    ("schedules", "put", "a", "--queue", "echo", "--every", "1m"),
    ("top",),
    ("bench",),
    ("health",),
)


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_command_when_nobody_listens_then_exit_3_in_one_line(args: tuple[str, ...]) -> None:
    done = mq(NOBODY, *args)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"Error: no service at {NOBODY}: Connection refused\n"


def test_command_when_the_service_is_silent_then_exit_3_after_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = mq(f"http://127.0.0.1:{silent.getsockname()[1]}", "health")
    assert done.returncode == 3
    assert "it did not answer in time" in done.stderr


class Stranger(BaseHTTPRequestHandler):
    """Something else that listens there."""

    def do_GET(self) -> None:
        status, kind, body = {
            "/prefix/v1/queues": (200, "text/html", b"<h1>Hello</h1>"),
            "/v1/queues": (502, "text/html", b"<h1>Bad Gateway</h1>"),
            "/v1/queues/q/messages/a": (200, "application/json", b'{"half": '),
            "/v1/queues/q/messages/b": (
                403,
                "application/problem+json",
                json.dumps({"type": "/problems/forbidden", "detail": "no\x1b[31m\n scope"}).encode(),
            ),
            "/v1/queues/q/messages/c": (
                401,
                "application/problem+json",
                b'{"type": "/problems/unauthorized", "detail": "a token is needed"}',
            ),
            "/v1/channels/c/events": (200, "text/plain", b"hello"),
            "/livez": (200, "text/plain", (self.headers["Authorization"] or "nobody").encode()),
        }[self.path.partition("?")[0]]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stranger() -> object:
    server = HTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_command_when_another_program_answers_then_exit_3_and_no_traceback(stranger: str) -> None:
    for url, *args in (
        (stranger, "queues"),
        (f"{stranger}/prefix/", "queues"),
        (stranger, "get", "q", "a"),
        (stranger, "tail", "c"),
    ):
        done = mq(url, *args)
        assert done.returncode == 3, args
        assert done.stderr.startswith("Error: ")
        assert done.stderr.count("\n") == 1


def test_command_when_refused_then_exit_1_and_the_text_does_no_harm_to_the_terminal(stranger: str) -> None:
    done = mq(stranger, "get", "q", "b")
    assert (done.returncode, done.stderr) == (1, "Error: no [31m scope (forbidden)\n")


def test_command_when_it_needs_a_token_then_exit_1_and_says_where_one_goes(stranger: str) -> None:
    done = mq(stranger, "get", "q", "c")
    assert done.returncode == 1
    assert done.stderr == "Error: a token is needed (unauthorized); the token is taken from MQSERVICE_TOKEN\n"


def test_command_when_a_token_is_set_then_it_goes_as_bearer(stranger: str) -> None:
    assert mq(stranger, "health", token="s3cret").stdout == "Bearer s3cret\n"
    assert mq(stranger, "health").stdout == "nobody\n"


@pytest.mark.parametrize("url", ["nonsense", "ftp://localhost", "http://", "http://localhost:port", "http://a?b=c"])
def test_command_when_the_address_is_none_then_exit_2(url: str) -> None:
    done = mq(url, "queues")
    assert done.returncode == 2
    assert "is no address of a service" in done.stderr


def test_health_when_served_then_ok_and_ready(served: Served) -> None:
    assert mq(served.url, "health").stdout == "ok\n"
    assert json.loads(mq(served.url, "health", "--ready", "--json").stdout) == {"state": "ready"}


@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_output_when_its_reader_has_gone_then_quiet(served: Served, flag: list[str]) -> None:
    ask(served, "POST", "/v1/queues/long/messages/batch", [{"body": "x" * 200}] * 900)
    with start(served.url, "get", "long", "--limit", "900", *flag) as getting:
        assert getting.stdout is not None
        assert getting.stderr is not None
        getting.stdout.read(10)
        getting.stdout.close()
        assert getting.wait(20) == 141
        assert getting.stderr.read() == ""


def test_output_when_a_shell_pipes_it_into_head_then_nothing_on_stderr(served: Served) -> None:
    script = f"{sys.executable} -m mqservice get long --json --limit 900 | head -n 1"
    done = subprocess.run(
        ["bash", "-c", script],
        env=environ(MQSERVICE_URL=served.url),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


@pytest.mark.parametrize(
    "args",
    [
        ("result", "sleep", "endless", "--wait", "60s"),
        ("send", "sleep", "60", "--wait", "60s"),
        ("top", "--json"),
        ("bench", "--queue", "sleep", "--phase", "wait", "--seconds", "60s"),
        ("queues", "purge", "sleep", "--state", "dead"),
        ("send", "echo"),
    ],
    ids=" ".join,
)
def test_command_when_interrupted_then_130_and_quiet(served: Served, args: tuple[str, ...]) -> None:
    ask(served, "POST", "/v1/queues/sleep/messages?id=endless", 3600)
    with start(served.url, *args) as running:
        # Interrupted too early, it would be Python that ends, not the command: wait until it talks to the service.
        wait_for(lambda: connected(running.pid) or args == ("send", "echo"))
        if args == ("send", "echo"):
            assert running.stdin is not None
            running.stdin.write("1\n")
            running.stdin.flush()
            assert running.stdout is not None
            assert running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=10)
        assert running.returncode == 130
        assert "Traceback" not in err
        assert "Aborted" not in err


def connected(pid: int) -> bool:
    """Whether a process has a connection."""
    descriptors = Path(f"/proc/{pid}/fd")
    try:
        return any(str(os.readlink(each)).startswith("socket:") for each in descriptors.iterdir())
    except FileNotFoundError:
        return False


def test_client_command_when_run_then_imports_no_more_than_it_needs(served: Served) -> None:
    script = """
import sys
from mqservice.cli import main
try:
    main(["queues", "--json"])
except SystemExit as end:
    assert not end.code
heavy = {"aiohttp", "redis", "uvloop", "structlog", "rich", "asyncio", "cronsim"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environ(MQSERVICE_URL=served.url),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_package_when_imported_then_its_names_are_there() -> None:
    import mqservice

    for name in mqservice.__all__:
        assert getattr(mqservice, name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = mqservice.nothing


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_when_printed_then_the_shell_takes_it(shell: str) -> None:
    done = mq(NOBODY, "completion", shell)
    assert done.returncode == 0, done.stderr
    assert "_MQSERVICE_COMPLETE" in done.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    checked = subprocess.run([shell, "-n"], input=done.stdout, capture_output=True, text=True, timeout=20, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def complete(url: str, *words: str) -> list[str]:
    """What the shell is offered for the last of `words`."""
    done = subprocess.run(
        [sys.executable, "-c", "from mqservice.cli import main; main(prog_name='mqservice')"],
        env=environ(
            MQSERVICE_URL=url,
            COMP_WORDS=" ".join(["mqservice", *words]),
            COMP_CWORD=str(len(words)),
            _MQSERVICE_COMPLETE="bash_complete",
        ),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.split()]


def test_completion_when_a_queue_is_wanted_then_from_the_service(served: Served) -> None:
    assert complete(served.url, "send", "e") == ["echo", "emails"]
    assert complete(served.url, "queues", "pause", "prod") == ["prodcons"]
    assert complete(served.url, "que") == ["queues"]
    assert "--state" in complete(served.url, "queues", "purge", "echo", "--")


@contextmanager
def trickling() -> Iterator[str]:
    """A server whose answer takes fifty seconds, a byte at a time."""
    over = threading.Event()

    def trickle() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X" * 500:
                connection.send(bytes([byte]))
                if over.wait(0.1):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        thread.join()


def test_completion_when_the_service_is_silent_then_nothing_and_soon() -> None:
    began_at = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert complete(f"http://127.0.0.1:{silent.getsockname()[1]}", "send", "e") == []
    with trickling() as url:
        assert complete(url, "send", "e") == []
    assert complete(NOBODY, "send", "e") == []
    assert complete("nonsense", "send", "e") == []
    assert time.monotonic() - began_at < 15
