"""Start the service as a user does, and end it as the world does."""

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_for

ROOT = Path(__file__).parent.parent


class Served:
    """A running `mqservice serve` and what it has printed."""

    def __init__(self, args: Sequence[str], environ: dict[str, str]) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mqservice", "serve", *args],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.out), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.err), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Iterator[str], lines: list[str]) -> None:
        for line in stream:
            lines.append(line.rstrip("\n"))  # noqa: PERF401 - one by one, for who looks meanwhile

    def started(self) -> "Served":
        """Wait for the start screen."""
        wait_for(lambda: any("stop " in line for line in self.err) or self.process.poll() is not None, 15)
        assert self.process.poll() is None, "\n".join(self.err)
        return self

    @property
    def url(self) -> str:
        """Where it listens."""
        match = re.search(r"http://\S+", "\n".join(self.err))
        assert match, self.err
        return match.group()

    def get(self, path: str) -> tuple[int, str]:
        """GET without following redirects; status and body."""
        return fetch(self.url + path)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def exit_code(self, timeout_s: float = 15.0) -> int:
        """Wait for the end."""
        code = self.process.wait(timeout_s)
        for reader in self._readers:
            reader.join(5)
        return code


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def fetch(url: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, str]:
    """One HTTP request; status and body, of errors too."""
    request = urllib.request.Request(url, method=method, headers=headers or {})
    try:
        with _OPENER.open(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@contextmanager
def serving(url: str, *args: str, **environ: str) -> Iterator[Served]:
    """Run the service on the Redis at `url`, on any free port unless told; SIGKILL at the end if it still runs."""
    extra = [] if "--port" in args or "--no-http" in args else ["--port", "0"]
    served = Served([*args, *extra], {"MQSERVICE_REDIS__URL": url, "MQSERVICE_REDIS__EMBEDDED": "never", **environ})
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.signal(signal.SIGKILL)
        served.exit_code()
        for stream in (served.process.stdout, served.process.stderr):
            if stream is not None:
                stream.close()
