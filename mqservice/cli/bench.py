"""`mqservice bench`: how fast is a running service, as its clients see it?"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

import click
import msgspec

from mqservice.cli.api import DURATION, with_api
from mqservice.cli.body import JSON_TYPE
from mqservice.cli.examples import examples
from mqservice.cli.messages import fate
from mqservice.cli.output import console, json_option, print_document, print_table
from mqservice.cli.problems import Failed
from mqservice.client import Client, path_of
from mqservice.errors import MqError

_PHASES: Final = ("send", "batch", "wait")
_BATCH: Final = 1000
_WAIT_S: Final = 30
_CONNECT_S: Final = 30
_LOOK_S: Final = 0.05

Work = Callable[[Client, int], None]
"""Sends so many messages with one request."""


class Figures(NamedTuple):
    """What one phase came to. Latencies are those of requests."""

    phase: str
    messages: int
    seconds: float
    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@click.command(epilog=examples("mqservice bench --count 2000", "mqservice bench --phase wait --seconds 2s --json"))
@click.option(
    "--queue", default="echo", show_default=True, help="Its handler does the work; best one that does little."
)
@click.option("--phase", "phases", type=click.Choice(_PHASES), multiple=True, help="Only this one; may be repeated.")
@click.option(
    "--count", type=click.IntRange(1, 10_000_000), default=10_000, show_default=True, help="Messages a phase."
)
@click.option("--seconds", "most_s", type=DURATION, default=10.0, help="A phase ends after so long.  [default: 10s]")
@click.option("--connections", type=click.IntRange(1, 200), default=16, show_default=True, help="Clients at a time.")
@click.option("--size", type=click.IntRange(2, 1_000_000), default=20, show_default=True, help="Bytes of a body.")
@json_option
@with_api
def bench(
    api: Client,
    queue: str,
    phases: tuple[str, ...],
    count: int,
    most_s: float,
    connections: int,
    size: int,
    as_json: bool,
) -> None:
    """Measure a running service over HTTP with real messages, which its handlers get.

    send: one message a request; batch: 1,000 a request; wait: one a request, answered with its result. This client
    is a Python process too: more of them at a time may get more out of the service.
    """
    if not api.call("GET", path_of("v1", "queues", queue)).json["consumers"]:
        raise Failed(f"queue {queue} has no consumers: nothing would become of the messages")
    body = msgspec.json.encode("x" * (size - 2))
    figures = []
    with _progress() as advance:
        for phase in _PHASES:
            if not phases or phase in phases:
                work, at_once = _work(phase, queue, body)
                load = Load(api, work, count, at_once, most_s)
                figures.append(load.run(phase, min(connections, -(-count // at_once)), advance))
    if as_json:
        phases_json = [each._asdict() for each in figures]
        print_document({"url": api.url, "queue": queue, "connections": connections, "phases": phases_json})
    else:
        _print(figures)


class Load:
    """Threads that send until all is sent, the time is over, or one fails."""

    def __init__(self, api: Client, work: Work, count: int, at_once: int, most_s: float) -> None:
        self._api, self._work, self._count, self._at_once, self._most_s = api, work, count, at_once, most_s
        self._lock = threading.Lock()
        self._taken = self._sent = 0
        self._latencies_s: list[float] = []
        self._ended_at = 0.0
        self._error: Exception | None = None
        self._stop = threading.Event()

    def run(self, phase: str, threads: int, advance: Callable[[str, int, int], None]) -> Figures:
        """Run one phase. Raises what a request raised."""
        started = threading.Barrier(threads + 1)
        workers = [threading.Thread(target=self._run, args=(started,), daemon=True) for _ in range(threads)]
        for worker in workers:
            worker.start()
        with suppress(threading.BrokenBarrierError):  # one could not connect, and says why
            started.wait(_CONNECT_S)
        began_at = time.monotonic()
        while any(worker.is_alive() for worker in workers):
            if time.monotonic() - began_at > self._most_s:
                self._stop.set()
            time.sleep(_LOOK_S)
            advance(phase, self._sent, self._count)
        if self._error is not None:
            raise self._error
        return _figures(phase, self._sent, self._ended_at - began_at, self._latencies_s)

    def _run(self, started: threading.Barrier) -> None:
        latencies_s: list[float] = []
        try:
            with self._api.another() as api:
                api.call("GET", "/livez")  # connects
                started.wait(_CONNECT_S)
                while number := self._take():
                    began_at = time.perf_counter()
                    self._work(api, number)
                    latencies_s.append(time.perf_counter() - began_at)
                    with self._lock:
                        self._sent += number
        except (MqError, Failed) as error:
            self._error = error
            self._stop.set()
            started.abort()
        except threading.BrokenBarrierError:  # another could not connect
            pass
        with self._lock:
            self._latencies_s += latencies_s
            self._ended_at = time.monotonic()

    def _take(self) -> int:
        with self._lock:
            number = 0 if self._stop.is_set() else min(self._at_once, self._count - self._taken)
            self._taken += number
        return number


def _work(phase: str, queue: str, body: bytes) -> tuple[Work, int]:
    """Return what one request of a phase does, and how many messages it sends at most."""
    path, headers = path_of("v1", "queues", queue, "messages"), {"Content-Type": JSON_TYPE}
    item = b'{"body":%s}' % body

    def send(api: Client, _: int) -> None:
        api.call("POST", path, body=body, headers=headers)

    def batch(api: Client, number: int) -> None:
        kind = {"Content-Type": "application/x-ndjson", "Idempotency-Key": str(uuid.uuid4())}
        api.call("POST", f"{path}/batch", body=b"\n".join([item] * number), headers=kind, timeout_s=30)

    def wait(api: Client, _: int) -> None:
        answer = api.call("POST", path, {"wait": _WAIT_S}, body, headers, timeout_s=_WAIT_S + 10)
        if answer.status != 200:
            raise Failed(f"a message of {queue} had no result after {_WAIT_S} s")
        if (view := answer.json)["state"] != "done":
            raise Failed(fate(view))

    return {"send": (send, 1), "batch": (batch, _BATCH), "wait": (wait, 1)}[phase]


def _figures(phase: str, messages: int, took_s: float, latencies_s: list[float]) -> Figures:
    ordered = sorted(latencies_s) or [0.0]

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 3)

    return Figures(phase, messages, round(took_s, 3), round(messages / took_s, 1), at(0.5), at(0.95), at(0.99), at(1.0))


def _print(figures: list[Figures]) -> None:
    rows = [
        (f.phase, f"{f.messages:,}", f"{f.seconds:.1f}", f"{f.per_s:,.0f}", *(f"{ms:.1f}" for ms in f[4:]))
        for f in figures
    ]
    print_table(("phase", "messages", "seconds", "messages/s", "p50 ms", "p95 ms", "p99 ms", "max ms"), rows)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    from rich.progress import Progress  # noqa: PLC0415

    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda phase, sent, count: None
        return
    with Progress(console=screen, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def advance(phase: str, sent: int, count: int) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=count)
            progress.update(tasks[phase], completed=sent)

        yield advance
