"""Run commands as a user does: processes with a terminal's environment, against a service of the test's own."""

import json
import os
import subprocess
import sys
import urllib.request
from typing import Any

from tests.processes import ROOT, Served

Done = subprocess.CompletedProcess[str]


def environ(**extra: str) -> dict[str, str]:
    """The environment of a command."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "PYTHONUNBUFFERED": "", **extra}


def mq(url: str, *args: str, stdin: str = "", token: str = "", timeout: float = 30) -> Done:
    """Run `mqservice` with these arguments to its end."""
    return subprocess.run(
        [sys.executable, "-m", "mqservice", *args],
        env=environ(MQSERVICE_URL=url, MQSERVICE_TOKEN=token),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start(url: str, *args: str) -> subprocess.Popen[str]:
    """Start `mqservice` with these arguments; in a session of its own, as from an own terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "mqservice", *args],
        env=environ(MQSERVICE_URL=url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def lines(done: Done) -> list[Any]:
    """NDJSON on stdout."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def ask(served: Served, method: str, path: str, body: Any = None) -> Any:
    """Ask the API directly."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(served.url + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=15) as answer:
        return json.loads(answer.read() or b"null")
