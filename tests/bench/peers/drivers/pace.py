"""What all Python drivers share: their wish, the clock of a drain, the answer. Only the standard library.

A driver is run with a JSON object as its argument, `{"url", "do": "drain" or "send", "count", ...}`, and prints a JSON
object as its last line: `{"drain_per_s"}`, or `{"send_per_s", "batch_per_s"}`.
"""

import asyncio
import json
import os
import sys
import time

CALLERS = 100
BATCH = 1000
WARM_PART = 10
"""The first tenth of a drain is not counted: start, connections, caches."""


def wish():
    """Return what is wanted, as an object with attributes."""
    return type("Wish", (), json.loads(sys.argv[1]))


def say(**figures):
    """Answer. Written at once and whole, whatever the library has done to stdout."""
    os.write(1, (json.dumps(figures) + "\n").encode())


class Pace:
    """Counts the runs of the job."""

    def __init__(self, count, at_end=None):
        self._count, self._at_end = count, at_end
        self._runs = 0
        self._warm_at = 0.0
        self.ended = asyncio.Event()

    def tick(self):
        """Count one run; after the last, say how fast it went."""
        self._runs += 1
        if self._runs == self._count // WARM_PART:
            self._warm_at = time.perf_counter()
        elif self._runs == self._count:
            took_s = time.perf_counter() - self._warm_at
            say(drain_per_s=(self._count - self._count // WARM_PART) / took_s)
            self.ended.set()
            if self._at_end:
                self._at_end()


async def send_by_callers(send, count):
    """Await `send(number)` from 100 callers; sends a second."""

    async def caller(numbers):
        for number in numbers:
            await send(number)

    await send(0)  # connections, scripts
    began_at = time.perf_counter()
    await asyncio.gather(*(caller(range(first, count, CALLERS)) for first in range(CALLERS)))
    return count / (time.perf_counter() - began_at)


async def send_in_batches(send_batch, count):
    """Await `send_batch(numbers)` a thousand at a time; sends a second."""
    await send_batch(range(1))
    began_at = time.perf_counter()
    for first in range(0, count, BATCH):
        await send_batch(range(first, min(first + BATCH, count)))
    return count / (time.perf_counter() - began_at)


def send_in_threads(send, count):
    """As `send_by_callers` for those that block: the better of one caller and of 16 threads."""
    from concurrent.futures import ThreadPoolExecutor

    send(0)
    began_at = time.perf_counter()
    for number in range(count // 2):
        send(number)
    alone = count // 2 / (time.perf_counter() - began_at)
    with ThreadPoolExecutor(16) as threads:
        began_at = time.perf_counter()
        list(threads.map(send, range(count // 2)))
        return max(alone, count // 2 / (time.perf_counter() - began_at))
