"""An idle queue: how long from `send` until the handler starts, with nothing that polls."""

import asyncio
import time

import redis.asyncio

from tests.bench.figures import Family, Figure, Limit, Plan, Ratio, Rounds
from tests.bench.lab import Lab
from tests.bench.subject import percentiles

P50, P99 = "idle latency, send to handler start, p50", "idle latency, send to handler start, p99"
BARE_P50, BARE_P99 = "yardstick: redis-py RPUSH to BLPOP, p50", "yardstick: redis-py RPUSH to BLPOP, p99"
GAP_S = 0.004


async def bare(lab: Lab, count: int) -> dict[str, float]:
    """Return the ms from an RPUSH until a BLPOP on another connection, in the same process, has its value."""
    took: list[float] = []
    async with redis.asyncio.from_url(lab.server.url(5)) as sender, redis.asyncio.from_url(lab.server.url(5)) as taker:
        for _ in range(count):
            waiting = asyncio.create_task(taker.blpop(["yardstick"], 5))
            await asyncio.sleep(GAP_S)
            began_at = time.perf_counter()
            waiting.add_done_callback(lambda _, began_at=began_at: took.append(time.perf_counter() - began_at))
            await sender.rpush("yardstick", b"7")
            await waiting
            await asyncio.sleep(0)
    figures = percentiles([seconds * 1000 for seconds in took])
    return {BARE_P50: figures["p50"], BARE_P99: figures["p99"]}


async def measure(lab: Lab, plan: Plan) -> Rounds:
    subject = await lab.subject(consumers=True)
    count = max(100, int(500 * plan.scale))
    await subject.call("latency", count=50, gap_s=GAP_S)  # warm
    for _ in range(plan.rounds):
        yardstick = await bare(lab, count)
        ours = await subject.call("latency", count=count, gap_s=GAP_S)
        yield yardstick | {P50: ours["p50"], P99: ours["p99"]}


FAMILY = Family(
    "latency",
    measure,
    (Figure(BARE_P50, "ms"), Figure(BARE_P99, "ms"), Figure(P50, "ms"), Figure(P99, "ms")),
    (Ratio(P50, BARE_P50, quick_at_most=6), Ratio(P99, BARE_P99)),
    (Limit(P50, 1.0), Limit(P99, 3.0)),
)
