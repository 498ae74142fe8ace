"""The service that is measured, in a process of its own: `python -m tests.bench.subject OPTIONS`.

Typed handlers, leases, retries and results as they are by default. Only its public API is used.
"""

import asyncio
import gc
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from mqservice import Service, log
from mqservice.config import Config, HttpConfig, LogConfig, RedisConfig
from mqservice.process import rest_the_collector
from mqservice.runtime import Parts
from tests.bench.answering import answer

SMALL = 7
"""The body of a small message: an int, as the peers get."""


UNREAD = "unread"
"""A queue without a handler: what is sent there disturbs nobody."""


class Meter:
    """Counts handler runs; knows when the last expected one ended."""

    def __init__(self) -> None:
        self._left = -1
        self._done = asyncio.Event()
        self.ended_at = 0.0

    def expect(self, count: int) -> None:
        self._left = count
        self._done.clear()

    def tick(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.ended_at = time.monotonic()
            self._done.set()

    async def wait(self) -> float:
        """Return when the last one ended, by the clock that all processes share."""
        await self._done.wait()
        return self.ended_at


class Subject:
    """The service and what can be done with it."""

    def __init__(self, url: str) -> None:
        self.service = Service(Config(redis=RedisConfig(url=url, embedded="never"), http=HttpConfig(port=0)))
        self._meter = Meter()
        self._started_at: list[float] = []
        self._began_cpu_s = 0.0
        self._register()

    def _register(self) -> None:
        meter = self._meter

        @self.service.handler("straight")
        async def straight(number: int) -> int:
            """End without suspending."""
            meter.tick()
            return number

        @self.service.handler("suspending")
        async def suspending(number: int) -> int:
            """Suspend once."""
            await asyncio.sleep(0)
            meter.tick()
            return number

        @self.service.handler("working")
        async def working(number: int) -> int:
            """Use 500 µs of CPU."""
            end = time.thread_time_ns() + 500_000
            while time.thread_time_ns() < end:
                pass
            meter.tick()
            return number

        @self.service.handler("bodies")
        async def bodies(body: bytes) -> int:
            meter.tick()
            return len(body)

        @self.service.handler("stamped")
        async def stamped(number: int) -> int:
            self._started_at.append(time.perf_counter())
            meter.tick()
            return number

    async def expect(self, count: int) -> dict[str, Any]:
        """Begin to count handler runs."""
        self._meter.expect(count)
        self._began_cpu_s = time.process_time()
        return {}

    async def ended(self) -> dict[str, Any]:
        """Wait for the last of them."""
        at = await self._meter.wait()
        return {"at": at, "cpu_s": time.process_time() - self._began_cpu_s}

    async def send(self, queue: str, count: int, callers: int, size: int = 0) -> dict[str, Any]:
        """Send by so many callers, each of which awaits its own answer."""
        body = bytes(size) if size else SMALL

        async def caller() -> None:
            for _ in range(count // callers):
                await self.service.send(queue, body)

        began_at, cpu_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller() for _ in range(callers)))
        elapsed_s = time.perf_counter() - began_at
        return {"s": elapsed_s, "cpu_s": time.process_time() - cpu_s}

    async def batch(self, queue: str, count: int, of: int, size: int = 0) -> dict[str, Any]:
        """Send so many in batches, one after the other."""
        body = bytes(size) if size else SMALL
        began_at = time.perf_counter()
        for begin in range(0, count, of):
            await self.service.send_many(queue, [body] * min(of, count - begin))
        return {"s": time.perf_counter() - began_at}

    async def end_to_end(self, queue: str, count: int, callers: int) -> dict[str, Any]:
        """Send and handle in this process; seconds from the first send until the last handler ended."""
        self._meter.expect(count // callers * callers)
        began_at = time.monotonic()
        await self.send(queue, count, callers)
        return {"s": await self._meter.wait() - began_at}

    async def latency(self, count: int, gap_s: float) -> dict[str, Any]:
        """Send to an idle queue, one by one; ms from the call of `send` until the handler starts."""
        took = []
        for _ in range(count):
            await asyncio.sleep(gap_s)
            self._meter.expect(1)
            self._started_at.clear()
            began_at = time.perf_counter()
            await self.service.send("stamped", SMALL)
            await self._meter.wait()
            took.append((self._started_at[0] - began_at) * 1000)
        return percentiles(took)

    async def memory(self) -> dict[str, Any]:
        """Resident bytes of this process."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {"rss": pages * 4096}


def percentiles(values: list[float]) -> dict[str, Any]:
    cuts = statistics.quantiles(values, n=100)
    return {"p50": cuts[49], "p99": cuts[98]}


async def main(url: str, consumers: bool) -> None:
    log.set_up(LogConfig())
    subject = Subject(url)
    service = subject.service
    await service.start(Parts(consumers=consumers))
    rest_the_collector()
    verbs = {
        name: getattr(subject, name) for name in ("expect", "ended", "send", "batch", "end_to_end", "latency", "memory")
    }
    try:
        await answer(verbs, {"url": service.url})
    finally:
        await service.stop(0.0)


if __name__ == "__main__":
    uvloop.run(main(**json.loads(sys.argv[1])))
