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
from mqservice.fault import OUTAGES
from mqservice.histogram import Histogram
from mqservice.history import History
from mqservice.processes import Processes, Report, Telling
from mqservice.queue_counters import KINDS
from mqservice.tally import OTHER, Counts, Tally

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
    keeps_records: Callable[[str], bool]
    """Whether the scripts count what becomes of a queue's messages; False for one at most once."""
    silent_s: Callable[[], dict[str, float]]
    """For how long Redis has not answered each of its consumers, by queue."""


class Reporter:
    """Reports one process. `lag_ms` returns the longest that its event loop was late lately; `tally` counts."""

    def __init__(self, connections: Connections, subject: Subject, lag_ms: Callable[[], float], tally: Tally) -> None:
        self._connections, self._subject, self._lag_ms, self._tally = connections, subject, lag_ms, tally
        self._processes, self._history = Processes(connections), History(connections)
        self._started_at_ms = time.time_ns() // 1_000_000
        self._run_times: dict[str, _RunTimes] = {}
        self._redis_ms = 0.0
        self._told: Counts = {}
        self._telling = Telling(0, {})

    def tell_runs(self, queue: QueueOptions) -> None:
        """Tell from now on how long the runs of a queue's handler take."""
        tally = self._tally.queue(queue.name, consumed=True)
        self._run_times[queue.key] = _RunTimes(tally.run)

    async def run(self) -> None:
        """Report once a second until cancelled; then say that this process has stopped."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while True:
                with contextlib.suppress(*OUTAGES):  # the connections log them
                    await self._report()
                due = max(due + EVERY_S, loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            with contextlib.suppress(MqError, TimeoutError):
                async with asyncio.timeout(_LEAVE_S):
                    await self._tell_rest()

    async def _report(self) -> None:
        started = time.perf_counter()
        must_sample = await self._tell()
        self._redis_ms = (time.perf_counter() - started) * 1000
        for list_key, runs in self._run_times.items():
            await self._tell_runs(list_key, runs)
        if must_sample:
            for queue in await self._subject.known():
                await self._history.sample(queue)

    def now(self) -> Report:
        """Return how this process is."""
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
            runs=sum(sum(runs.histogram.counts) for runs in self._run_times.values()),
            streams=subject.streams(),
            rss_bytes=_rss_bytes(),
            published_per_s=subject.published_per_s(),
            cpu_s=round(time.process_time(), 3),
            silent_s={queue: round(silent_s, 3) for queue, silent_s in subject.silent_s().items()},
        )

    def counts(self) -> Counts:
        """Return everything that this process has counted."""
        connections = self._connections
        outages = {
            ("redis_outages", ""): connections.outages,
            ("redis_reconnects", ""): connections.reconnects,
            ("redis_away us", ""): int(connections.away_s * 1e6),
        }
        return {**self._tally.counts(), **{key: count for key, count in outages.items() if count}}

    async def _tell(self) -> bool:
        must_sample = await self._processes.put(self.now(), self._next_telling())
        self._telling = Telling(self._telling.number, {})
        return must_sample

    async def _tell_rest(self) -> None:
        if self._telling.counts:  # it may have been heard, or not: told again first
            await self._tell()
        await self._processes.leave(self._subject.name, self._next_telling())

    def _next_telling(self) -> Telling:
        """Return what is to be told now: what Redis may not have got, again, else what has been counted since."""
        if not self._telling.counts:
            counts = {key: count for key, count in self.counts().items() if self._is_told(*key)}
            more = {key: count - self._told.get(key, 0) for key, count in counts.items()}
            self._telling = Telling(self._telling.number + 1, {key: count for key, count in more.items() if count})
            self._told = counts
        return self._telling

    def _is_told(self, field: str, queue: str) -> bool:
        """Whether processes must tell it: what becomes of messages that have records is counted by the scripts."""
        if not queue or field.partition(" ")[0] not in KINDS:
            return True
        return queue != OTHER and not self._subject.keeps_records(queue)

    async def _tell_runs(self, list_key: str, runs: "_RunTimes") -> None:
        """Add the runs of this second to those of all processes. If Redis goes away meanwhile they are lost."""
        counts = runs.take()
        if counts:
            args = [part for bucket in counts.items() for part in bucket]
            await self._connections.run(scripts.RUNS, list_key, args)


class _RunTimes:
    """The run times of one queue, and what of them has been told."""

    def __init__(self, histogram: Histogram) -> None:
        self.histogram = histogram
        self._told = list(histogram.counts)

    def take(self) -> dict[int, int]:
        """Return the counts by bucket that have not been taken yet."""
        taken = self.histogram.since(self._told).by_bucket()
        self._told = list(self.histogram.counts)
        return taken


def _rss_bytes() -> int:
    """Return the memory that is resident, where the system says; else the most that was."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
