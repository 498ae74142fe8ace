"""`make bench`: sends and drains through the public API, beside `redis-benchmark` on the same server.

One JSON line a figure, the median of several rounds; ratios count, not figures: machines drift between runs.
"""

import asyncio
import gc
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from mqservice import Service
from mqservice.config import Config, HttpConfig, RedisConfig
from mqservice.embedded import EmbeddedServer, private_server
from mqservice.runtime import Parts

COUNT = 20_000
SENDERS = 100
ROUNDS = 3


def report(figure: str, per_s: float, yardstick_per_s: float | None) -> None:
    """Print one figure as a JSON line."""
    line: dict[str, object] = {"figure": figure, "per_s": round(per_s)}
    if yardstick_per_s:
        line |= {"yardstick_per_s": round(yardstick_per_s), "ratio": round(per_s / yardstick_per_s, 3)}
    print(json.dumps(line), flush=True)


async def redis_benchmark(server: EmbeddedServer) -> float | None:
    """RPUSHes a second by redis-benchmark, 100 in a pipeline; None where it is not installed."""
    program = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if program is None:
        return None
    command = [program, "-s", str(server.socket), "-t", "rpush", "-P", "100", "-n", "500000", "-q", "--csv"]
    run = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    last = run.stdout.strip().splitlines()[-1]
    return float(last.split(",")[1].strip('"'))


async def send_and_handle(service: Service) -> tuple[float, float]:
    """Send COUNT messages by 100 callers to a no-op handler in this process; messages a second sent, and handled."""
    handled, done = 0, asyncio.Event()

    async def caller() -> None:
        for number in range(COUNT // SENDERS):
            await service.send("noop", number)

    def count() -> None:
        nonlocal handled
        handled += 1
        if handled == COUNT:
            done.set()

    HOOK[0] = count
    began_at = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(SENDERS)))
    sent_s = time.perf_counter() - began_at
    await done.wait()
    return COUNT / sent_s, COUNT / (time.perf_counter() - began_at)


HOOK: list[Callable[[], None]] = [lambda: None]


def noop_service(server: EmbeddedServer) -> Service:
    """A service with one handler that only counts."""
    service = Service(Config(redis=RedisConfig(url=server.url(5), embedded="never"), http=HttpConfig(port=0)))

    @service.handler("noop")
    async def noop(number: int) -> None:
        HOOK[0]()

    return service


async def median(measure: Callable[[], Awaitable[tuple[float, float]]]) -> tuple[float, float]:
    """The medians of several rounds of two figures."""
    rounds = [await measure() for _ in range(ROUNDS)]
    return statistics.median(r[0] for r in rounds), statistics.median(r[1] for r in rounds)


async def main() -> None:
    """Measure everything."""
    async with private_server() as server:
        yardstick = await redis_benchmark(server)
        if yardstick is None:
            print("no redis-benchmark here: figures without yardstick", file=sys.stderr)
        else:
            report("yardstick: redis-benchmark -t rpush -P 100", yardstick, None)
        service = noop_service(server)
        await service.start(Parts(http=False))
        gc.freeze()
        sent, handled = await median(lambda: send_and_handle(service))
        await service.stop()
        report(f"send, {SENDERS} callers, handled in the same process meanwhile", sent, yardstick)
        report(f"send to handled, {SENDERS} callers, one process", handled, yardstick)


uvloop.run(main())
