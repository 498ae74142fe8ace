"""`mqservice demo`: the service under a mixed load, to look at. Its data lives in a directory that goes with it."""

import fcntl
import json
import math
import random
import subprocess
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from mqservice.cli import child
from mqservice.cli.api import DURATION
from mqservice.cli.body import JSON_TYPE
from mqservice.cli.examples import examples
from mqservice.cli.output import say, span
from mqservice.cli.problems import Failed
from mqservice.client import ApiProblem, Client, NoAnswer, path_of
from mqservice.keeper import SERVER_LOCK

_START_S: Final = 30.0
_TURN_S: Final = 0.1
_WAVE_S: Final = 60.0
_CONFIG: Final = """\
[redis]
embedded = "always"
data_dir = {data}

[http]
port = {port}

[service]
app = "mqservice.cli.showcase:service"
"""


@click.command(epilog=examples("mqservice demo", "mqservice demo --seconds 2s --port 5055"))
@click.option("--seconds", "most_s", type=DURATION, default=600.0, help="Ends by itself after so long.  [default: 10m]")
@click.option("--port", type=click.IntRange(1, 65_535), default=5000, show_default=True, help="Port to listen on.")
def demo(most_s: float, port: int) -> None:
    """Run the service with a Valkey of its own, under a mixed load, and say where the dashboard is.

    Messages are sent to prodcons, echo, sleep and flaky, which fails sometimes; prices are published.
    """
    url = f"http://localhost:{port}"
    with tempfile.TemporaryDirectory(prefix="mqservice-demo-") as directory:
        config = Path(directory, "config.toml")
        config.write_text(_CONFIG.format(data=json.dumps(directory), port=port), "utf-8")
        child.term_as_interrupt()
        served = child.start(["--config", str(config)], quiet=True)
        try:
            with Client(url) as api:
                _await_ready(api, served)
                say(f"  look at   {url}/dashboard, for {span(most_s)}; Ctrl-C ends it\n")
                _load(api, served, time.monotonic() + most_s)
        finally:
            child.end(served)
            _await_end_of_server(Path(directory, SERVER_LOCK))


def _await_ready(api: Client, served: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + _START_S
    while time.monotonic() < give_up_at:
        if served.poll() is not None:
            raise Failed("the service did not start")
        with suppress(NoAnswer, ApiProblem):
            api.call("GET", "/readyz", timeout_s=1)
            return
        time.sleep(_TURN_S)
    raise Failed(f"the service was not ready within {_START_S:g} s")


def _await_end_of_server(lock: Path) -> None:
    """Wait until the private server, which its keeper ends, writes no more into the directory that will go."""
    if not lock.exists():
        return
    give_up_at = time.monotonic() + _START_S
    with lock.open("rb") as file:
        while time.monotonic() < give_up_at:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held by the server as long as it lives
                return
            time.sleep(_TURN_S)


def _load(api: Client, served: subprocess.Popen[bytes], end_at: float) -> None:
    """Send ten times a second, in waves of a minute; what is refused is refused."""
    for turn in count():
        if served.poll() is not None:
            raise Failed("the service has ended")
        if time.monotonic() >= end_at:
            return
        with suppress(NoAnswer, ApiProblem):
            _turn(api, turn)
        time.sleep(_TURN_S)


def _turn(api: Client, turn: int) -> None:
    wave = 0.5 + 0.5 * math.sin(2 * math.pi * turn * _TURN_S / _WAVE_S)
    if turn % 2 == 0:
        api.call("GET", "/prodcons")
    for _ in range(round(1 + 4 * wave)):
        _post(api, ("queues", "echo", "messages"), {"turn": turn})
    if turn % 3 == 0:
        _post(api, ("queues", "sleep", "messages"), round(random.expovariate(2), 2))
        _post(api, ("queues", "flaky", "messages"), turn)
    if turn % 10 == 0:
        _post(api, ("channels", "prices.eur", "messages"), round(random.gauss(1.07, 0.01), 4))
        _post(api, ("queues", "echo", "messages"), "later", delay="20s")
    if turn % 200 == 100:
        items = [{"body": number} for number in range(500)]
        _post(api, ("queues", "echo", "messages", "batch"), items)


def _post(api: Client, path: tuple[str, ...], body: Any, **query: str) -> None:
    content = msgspec.json.encode(body)
    api.call("POST", path_of("v1", *path), query, content, {"Content-Type": JSON_TYPE})
