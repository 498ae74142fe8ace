"""Log lines of real processes: for people on a terminal, for machines elsewhere; their level; in other programs."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis

from mqservice import Service
from mqservice.config import Config
from tests.processes import ROOT, Served, serving
from tests.waiting import wait_for

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
APP = """
import logging
import structlog
from mqservice import Message, Service

service = Service()

@service.handler("work")
async def work(body: int) -> int:
    structlog.get_logger().info("over structlog")
    structlog.get_logger().debug("in detail")
    logging.getLogger("shop").info("over %s", "logging")
    try:
        raise KeyError("local")
    except KeyError:
        logging.getLogger("shop").exception("it failed")
    return body

@service.handler("plain")
def plain(body: int) -> int:
    logging.getLogger("shop").warning("in a thread")
    return body
"""


@pytest.fixture
def app(tmp_path: Path) -> dict[str, str]:
    """The variables with which an application is found that logs."""
    (tmp_path / "logging_app.py").write_text(APP)
    return {"PYTHONPATH": str(tmp_path), "MQSERVICE_SERVICE__APP": "logging_app:service"}


def lines(served: Served) -> list[dict[str, Any]]:
    return [json.loads(line) for line in list(served.err) if line.startswith("{")]


def line(served: Served, phrase: str) -> dict[str, Any]:
    wait_for(lambda: any(line["event"] == phrase for line in lines(served)))
    return next(line for line in lines(served) if line["event"] == phrase)


def test_lines_when_no_terminal_reads_them_then_they_are_json_and_name_the_message(
    url: str, app: dict[str, str]
) -> None:
    with serving(url, **app) as served:
        served.started()
        phrases = {"work": ["over structlog", "over logging", "it failed"], "plain": ["in a thread"]}
        for queue, its in phrases.items():
            headers = {"Content-Type": "application/json", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            url = f"{served.url}/v1/queues/{queue}/messages?id=order-{queue}"
            with urllib.request.urlopen(urllib.request.Request(url, b"7", headers), timeout=10) as answer:
                assert answer.status == 202
            about = {"queue": queue, "id": f"order-{queue}", "attempt": 1, "trace_id": TRACE}
            for phrase in its:
                assert about.items() <= line(served, phrase).items()
                assert re.fullmatch("[0-9a-f]{16}", line(served, phrase)["span_id"])
        assert line(served, "over logging")["logger"] == "shop"
        assert line(served, "over logging")["level"] == "info"
        assert "KeyError: 'local'" in line(served, "it failed")["exception"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line(served, "over structlog")["timestamp"])
        assert not any(line["event"] == "in detail" for line in lines(served))


class Terminal:
    """A pseudo terminal, on which a service runs."""

    def __init__(self, url: str, environ: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self.seen, self._hung_up = "", False
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mqservice", "serve", "--port", "0"],
            cwd=ROOT,
            env={**os.environ, "MQSERVICE_REDIS__URL": url, "MQSERVICE_REDIS__EMBEDDED": "never", **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while not self._hung_up and (piece := os.read(self._ours, 65_536)):
                self.seen += piece.decode(errors="replace")
        except OSError:  # the other side has ended
            pass
        os.close(self._ours)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def hang_up(self) -> None:
        """Close the window, once one more line has been written."""
        self._hung_up = True
        self.signal(signal.SIGHUP)
        self._reader.join(5)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(5)


@pytest.fixture
def at_terminal(url: str, app: dict[str, str]) -> Iterator[Terminal]:
    terminal = Terminal(url, app)
    try:
        wait_for(lambda: "Ctrl-C" in terminal.seen, 15)
        yield terminal
    finally:
        terminal.close()


def test_lines_when_on_a_terminal_then_they_are_for_people_and_in_colour(url: str, at_terminal: Terminal) -> None:
    with redis.Redis.from_url(url) as client:
        client.rpush("mq:work", "7")
    wait_for(lambda: "it failed" in at_terminal.seen and "KeyError" in at_terminal.seen)
    assert "\x1b[" in at_terminal.seen
    bare = re.sub(r"\x1b\[[0-9;]*m", "", at_terminal.seen)
    assert re.search(r"\d\d:\d\d:\d\d \[info +\] over structlog +attempt=1 id=\S+ queue=work", bare)
    assert "╭" not in bare  # as a traceback with the variables of each frame would have
    at_terminal.signal(signal.SIGTERM)
    assert at_terminal.process.wait(15) == 0
    assert "draining" in at_terminal.seen


def test_lines_when_for_people_but_in_a_file_then_they_have_no_colour(url: str) -> None:
    with serving(url, MQSERVICE_LOG__FORMAT="console") as served:
        served.started().signal(signal.SIGTERM)
        assert served.exit_code() == 0
        assert any("draining" in line for line in served.err)
        assert not any("\x1b" in line for line in served.err)


def test_hangup_when_the_configuration_has_another_level_then_it_holds_and_is_said(
    url: str, app: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[log]\nlevel = "error"\n')
    with serving(url, MQSERVICE_CONFIG=str(file), **app) as served, redis.Redis.from_url(url) as client:
        served.started()
        file.write_text('[log]\nlevel = "debug"\n')
        served.signal(signal.SIGHUP)
        assert line(served, "log level set")["level"] == "info"
        assert json.loads(served.get("/v1/log")[1]) == {"level": "debug"}
        client.rpush("mq:work", "7")
        assert line(served, "in detail")["queue"] == "work"
        assert line(served, "settled")["id"] == line(served, "in detail")["id"]
        assert line(served, "settled")["outcome"] == "done"
        file.write_text('[log]\nlevel = "loud"\n')
        served.signal(signal.SIGHUP)
        assert "log.level" in line(served, "configuration not read again")["error"]
        assert json.loads(served.get("/v1/log")[1]) == {"level": "debug"}
        file.write_text('[log]\nlevel = "error"\n')
        served.signal(signal.SIGHUP)
        wait_for(lambda: json.loads(served.get("/v1/log")[1]) == {"level": "error"})
        assert served.process.poll() is None


def test_hangup_when_its_terminal_was_closed_then_the_service_drains_and_ends(at_terminal: Terminal) -> None:
    at_terminal.hang_up()
    at_terminal.signal(signal.SIGHUP)
    assert at_terminal.process.wait(15) == 0


async def test_level_when_put_then_it_holds_for_this_process_and_nonsense_is_refused(config: Config) -> None:
    service = Service(config)
    async with service, aiohttp.ClientSession() as client:
        url = f"{service.url}/v1/log"

        async def ask(method: str, body: Any = None) -> tuple[int, Any]:
            async with client.request(method, url, json=body) as response:
                return response.status, json.loads(await response.read())

        _, before = await ask("GET")
        for level in ("debug", "error", before["level"]):
            assert await ask("PUT", {"level": level}) == (200, {"level": level})
            assert await ask("GET") == (200, {"level": level})
        for nonsense in ({"level": "loud"}, {"level": 10}, {}, {"level": "debug", "for": "all"}, "debug"):
            status, problem = await ask("PUT", nonsense)
            assert (status, problem["type"]) == (400, "/problems/invalid-level")
        async with client.put(url, data="debug", headers={"Content-Type": "text/plain"}) as response:
            assert response.status == 415
        assert await ask("GET") == (200, before)


PROGRAM = """
import asyncio, logging, sys
import structlog
from mqservice import Service
{more}
service = Service()

@service.subscriber("news")
async def news(body: int) -> None:
    raise KeyError("of the subscriber")

@service.handler("slow")
async def slow(body: int) -> None:
    await asyncio.sleep(60)

async def main():
    async with service:
        await service.publish("news", 1)
        await service.send("slow", 1)
        await asyncio.sleep(0.5)
        await service.stop(0.0)

asyncio.run(main())
structlog.get_logger().info("the program's own")
"""


@pytest.mark.parametrize(
    ("more", "out", "err"),
    [
        ("", "the program's own", ["subscriber failed channel='news'", "KeyError: 'of the subscriber'"]),
        (
            "logging.basicConfig(level=logging.INFO)",
            "the program's own",
            ["ERROR:mqservice:subscriber failed", "INFO:mqservice:released queue='slow' count=1"],
        ),
        (
            "structlog.configure([structlog.processors.KeyValueRenderer()], "
            "logger_factory=structlog.PrintLoggerFactory(sys.stderr))",
            "",
            ["event='subscriber failed'", "event='released'", 'event="the program\'s own"'],
        ),
    ],
    ids=["bare", "logging", "structlog"],
)
def test_program_when_it_embeds_the_service_then_standard_output_is_its_own(
    url: str, more: str, out: str, err: list[str]
) -> None:
    environ = {"MQSERVICE_REDIS__URL": url, "MQSERVICE_REDIS__EMBEDDED": "never", "MQSERVICE_HTTP__PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(more=more)],
        cwd=ROOT,
        env={**os.environ, **environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [text for text in err if text not in done.stderr] == []
    assert ("released" in done.stderr) == bool(more)
    said = done.stdout.splitlines()
    assert len(said) == bool(out)
    assert all(out in each for each in said)
