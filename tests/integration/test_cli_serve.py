"""`mqservice serve --reload` and `mqservice demo`: processes that look after a process."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.commands import environ, mq
from tests.waiting import wait_for

APP = """
import asyncio
from mqservice import Service

service = Service()

@service.handler("work")
async def work(seconds: float) -> str:
    print("began", flush=True)
    await asyncio.sleep(seconds)
    return "{version}"
"""


class Looked:
    """A command that runs on, and what it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.said = process, list[str]()
        self._readers = [
            threading.Thread(target=self._read, args=(stream,)) for stream in (process.stdout, process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Iterator[str]) -> None:
        for line in stream:
            self.said.append(line.rstrip())

    def starts(self) -> list[str]:
        """The address of each start so far."""
        return re.findall(r"open +(http://\S+)", "\n".join(self.said))

    def counted(self, text: str) -> int:
        return sum(text in line for line in self.said)

    def join(self) -> int:
        code = self.process.wait(40)
        for reader in self._readers:
            reader.join(5)
        return code


@contextmanager
def looked(directory: Path, url: str, *args: str, **extra: str) -> Iterator[Looked]:
    redis_settings = {"MQSERVICE_REDIS__URL": url, "MQSERVICE_REDIS__EMBEDDED": "never"} if url else {}
    with subprocess.Popen(
        [sys.executable, "-m", "mqservice", *args],
        cwd=directory,
        env=environ(**redis_settings, **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        looking = Looked(process)
        try:
            yield looking
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            looking.join()


def test_reload_when_code_changes_then_it_drains_and_serves_the_new_code(url: str, tmp_path: Path) -> None:
    app = tmp_path / "shop.py"
    app.write_text(APP.format(version="old"))
    with looked(tmp_path, url, "serve", "--app", "shop:service", "--port", "0", "--reload") as looking:
        wait_for(lambda: len(looking.starts()) == 1, 20)
        sent = mq(looking.starts()[0], "send", "work", "1.5", "--id", "long")
        assert sent.returncode == 0, sent.stderr
        wait_for(lambda: looking.counted("began") == 1, 10)
        app.write_text(APP.format(version="new"))
        wait_for(lambda: len(looking.starts()) == 2, 30)
        assert looking.counted("changed: shop.py") == 1
        # What ran was finished by the old code, in its time, and not run again.
        assert mq(looking.starts()[1], "result", "work", "long").stdout == '"old"\n'
        assert looking.counted("began") == 1
        assert mq(looking.starts()[1], "send", "work", "0", "--wait", "10s").stdout == '"new"\n'


def test_reload_when_the_new_code_is_broken_then_it_waits_for_the_next_change(url: str, tmp_path: Path) -> None:
    app, config = tmp_path / "shop.py", tmp_path / "config.toml"
    app.write_text(APP.format(version="old"))
    config.write_text("[http]\nport = 0\n")
    with looked(tmp_path, url, "serve", "--app", "shop:service", "--reload") as looking:
        wait_for(lambda: len(looking.starts()) == 1, 20)
        app.write_text("service = (")
        wait_for(lambda: looking.counted("SyntaxError") == 1, 20)
        assert looking.process.poll() is None
        app.write_text(APP.format(version="mended"))
        wait_for(lambda: len(looking.starts()) == 2, 30)
        config.write_text("[http]\nport = 0\n\n[queues.work]\nconcurrency = 7\n")
        wait_for(lambda: len(looking.starts()) == 3, 30)
        (tmp_path / "notes.txt").write_text("no code")
        looking.process.send_signal(signal.SIGINT)
        assert looking.join() == 130
        assert looking.counted("changed: ") == 3
        assert looking.counted("Traceback") == 1  # that of the broken code


def test_reload_when_ctrl_c_is_pressed_then_what_runs_is_finished(url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP.format(version="old"))
    with looked(tmp_path, url, "serve", "--app", "shop:service", "--port", "0", "--reload") as looking:
        wait_for(lambda: len(looking.starts()) == 1, 20)
        mq(looking.starts()[0], "send", "work", "1.5", "--id", "long")
        wait_for(lambda: looking.counted("began") == 1, 10)
        os.killpg(looking.process.pid, signal.SIGINT)  # as a terminal does: to all in the foreground
        assert looking.join() == 130
    with redis.Redis.from_url(url, decode_responses=True) as client:
        assert client.hmget("{mq:work}:m:long", "state", "result") == ["done", '"old"']


def test_reload_when_told_to_end_then_no_process_is_left(url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP.format(version="old"))
    with looked(tmp_path, url, "serve", "--app", "shop:service", "--port", "0", "--reload") as looking:
        wait_for(lambda: len(looking.starts()) == 1, 20)
        looking.process.send_signal(signal.SIGTERM)
        looking.join()
        assert mq(looking.starts()[0], "health").returncode == 3
    with redis.Redis.from_url(url) as client:
        assert client.client_list(_type="pubsub") == []


def test_reload_when_the_extra_is_missing_then_exit_2_and_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "watchfiles.py").write_text("raise ModuleNotFoundError('watchfiles')")
    path = os.pathsep.join([str(tmp_path), environ()["PYTHONPATH"]])
    with looked(tmp_path, "", "serve", "--reload", PYTHONPATH=path) as looking:
        assert looking.join() == 2
        assert looking.counted("pip install 'mqservice[reload]'") == 1


def test_demo_when_run_then_messages_flow_until_the_time_is_over_and_nothing_stays(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    with looked(tmp_path, "", "demo", "--seconds", "6s", "--port", port, TMPDIR=str(tmp_path)) as looking:
        wait_for(lambda: looking.counted("look at") == 1, 30)
        assert looking.counted(f"look at   http://localhost:{port}/dashboard") == 1

        def done(queue: str) -> int:
            listed = mq(f"http://localhost:{port}", "get", queue, "--state", "done", "--json")
            return listed.stdout.count("\n")

        wait_for(lambda: all(done(queue) for queue in ("echo", "sleep", "prodcons", "flaky")), 10)
        assert looking.join() == 0
    assert list(tmp_path.iterdir()) == []
