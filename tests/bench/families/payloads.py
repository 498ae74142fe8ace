"""Bodies of 100 B, 10 KiB and 100 KiB, sent and drained, beside what moves the same bytes through Redis."""

import time

import redis.asyncio

from tests.bench import drains, yardsticks
from tests.bench.figures import Family, Figure, Plan, Ratio, Rounds
from tests.bench.lab import Lab
from tests.bench.subject import UNREAD

SIZES = {"100 B": (100, 20_000), "10 KiB": (10_240, 5000), "100 KiB": (102_400, 1000)}
"""Name → bytes, messages a round."""
BATCH_BYTES = 1 << 20


def drained(name: str) -> str:
    return f"drain, bodies of {name}"


def sent(name: str) -> str:
    return f"send, 100 callers, bodies of {name}"


def moved(name: str) -> str:
    return f"yardstick: redis-py pipelined LMOVE of {name}"


def pushed(name: str) -> str:
    return f"yardstick: redis-py pipelined RPUSH of {name}"


async def moves(lab: Lab, count: int, size: int) -> float:
    """Return the bodies a second that one connection moves from list to list, and reads, in pipelines."""
    batch = batch_of(size)
    async with redis.asyncio.from_url(lab.server.url(5), protocol=3) as client:
        for _ in range(0, count, batch):
            await client.rpush("from", *([bytes(size)] * batch))
        began_at = time.perf_counter()
        for _ in range(0, count, batch):
            async with client.pipeline(transaction=False) as pipeline:
                for _ in range(batch):
                    pipeline.lmove("from", "to", "LEFT", "RIGHT")
                await pipeline.execute()
        took_s = time.perf_counter() - began_at
    await lab.clear()
    return count / took_s


def batch_of(size: int) -> int:
    return max(10, min(100, BATCH_BYTES // size))


async def measure(lab: Lab, plan: Plan) -> Rounds:
    sender, worker = await lab.subject(consumers=False), await lab.subject(consumers=True)
    await drains.drain(lab, sender, [worker], "bodies", 2000, 100)  # warm
    for _ in range(plan.rounds):
        figures = {}
        for name, (size, full) in SIZES.items():
            count = max(500, int(full * plan.scale) // 100 * 100)
            figures[moved(name)] = await moves(lab, count, size)
            figures[drained(name)] = (await drains.drain(lab, sender, [worker], "bodies", count, size)).per_s
            figures[pushed(name)] = await yardsticks.pipeline(lab, count, size)
            took = await sender.call("send", queue=UNREAD, count=count, callers=100, size=size)
            figures[sent(name)] = count / took["s"]
            await lab.clear()
        yield figures


FAMILY = Family(
    "payloads",
    measure,
    tuple(Figure(figure(name)) for name in SIZES for figure in (moved, drained, pushed, sent)),
    (
        *(Ratio(drained(name), moved(name), at_least=None if name == "100 B" else 0.5) for name in SIZES),
        *(Ratio(sent(name), pushed(name)) for name in SIZES),
    ),
    in_quick=False,
)
