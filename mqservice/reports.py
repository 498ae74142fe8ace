"""What a process tells the others once a second: how it is, how long its handlers ran, how deep the queues are.

Run by the runtime as one watched task. The processes share the sampling of the queues: Redis tells one of them in
10 s to do it. A Redis that is away is waited for; what could not be told by then is told when it is back.
"""

import asyncio
import contextlib
import os
import resource
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from mqservice import scripts
from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.errors import MqError
from mqservice.histogram import Histogram
from mqservice.history import History
from mqservice.processes import Processes, Report

EVERY_S = 1.0
_LEAVE_S = 1.0


@dataclass(frozen=True)
class Subject:
    """What a report is about: one process, as its runtime knows it."""

    name: str
    consumed: Callable[[], list[str]]
    """The names of the queues that it consumes."""
    known: Callable[[], Awaitable[list[QueueOptions]]]
    """The queues that any process has served or sent to."""
    held: Callable[[], int]
    """Messages that it works on."""
    streams: Callable[[], int]
    """Open event streams."""
    published_per_s: Callable[[], dict[str, float]]
    """By channel."""


class Reporter:
    """Reports one process. `lag_ms` returns the longest that its event loop was late lately."""

    def __init__(self, connections: Connections, subject: Subject, lag_ms: Callable[[], float]) -> None:
        self._connections, self._subject, self._lag_ms = connections, subject, lag_ms
        self._processes, self._history = Processes(connections), History(connections)
        self._started_at_ms = time.time_ns() // 1_000_000
        self._run_times: dict[str, Histogram] = {}
        self._runs = 0
        self._redis_ms = 0.0

    def observe(self, list_key: str) -> Callable[[float], None]:
        """Return what is to be called with the seconds that each run of a queue's handler took."""
        return self._run_times.setdefault(list_key, Histogram()).observe

    async def run(self) -> None:
        """Report once a second until cancelled; then say that this process has stopped."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while True:
                with contextlib.suppress(MqError):  # an outage is logged by the connections
                    await self._report()
                due = max(due + EVERY_S, loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            with contextlib.suppress(MqError, TimeoutError):
                async with asyncio.timeout(_LEAVE_S):
                    await self._processes.leave(self._subject.name)

    async def _report(self) -> None:
        started = time.perf_counter()
        must_sample = await self._processes.put(self._now())
        self._redis_ms = (time.perf_counter() - started) * 1000
        for list_key, histogram in self._run_times.items():
            await self._tell_runs(list_key, histogram)
        if must_sample:
            for queue in await self._subject.known():
                await self._history.sample(queue)

    def _now(self) -> Report:
        subject = self._subject
        return Report(
            name=subject.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at_ms=self._started_at_ms,
            queues=subject.consumed(),
            loop_lag_ms=round(self._lag_ms(), 3),
            redis_ms=round(self._redis_ms, 3),
            held=subject.held(),
            runs=self._runs + sum(sum(histogram.counts) for histogram in self._run_times.values()),
            streams=subject.streams(),
            rss_bytes=_rss_bytes(),
            published_per_s=subject.published_per_s(),
        )

    async def _tell_runs(self, list_key: str, histogram: Histogram) -> None:
        """Add the runs of this second to those of all processes. If Redis goes away meanwhile they are lost."""
        counts = histogram.take()
        if counts:
            self._runs += sum(counts.values())
            args = [part for bucket in counts.items() for part in bucket]
            await self._connections.run(scripts.RUNS, list_key, args)


def _rss_bytes() -> int:
    """Return the memory that is resident, where the system says; else the most that was."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
