"""What Redis is asked for, counted by Redis: counting knows no noise, so this gates speed where no clock can."""

import asyncio
from collections import Counter

from redis.asyncio import Redis

from mqservice import Service
from mqservice.config import Config
from mqservice.runtime import Parts
from tests.waiting import until, until_async

COUNT = 4000
LIMIT = 0.05
"""Calls a message: claim and settle in batches of 100 come to 0.02 to 0.03, one call for each message to 1."""


async def calls(redis_client: Redis) -> dict[str, int]:
    """Return how often clients have called each command that a process uses; not what scripts call inside."""
    stats = await redis_client.info("commandstats")
    return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval", "fcall", "blpop")}


async def states(redis_client: Redis) -> Counter[bytes]:
    """Return how many messages are in each state."""
    async with redis_client.pipeline(transaction=False) as pipeline:
        async for key in redis_client.scan_iter("{mq:jobs}:m:*", count=1000):
            pipeline.hget(key, "state")
        return Counter(await pipeline.execute())


async def calls_of_a_drain(config: Config, redis_client: Redis, *, suspends: bool) -> float:
    """Send COUNT messages while nobody consumes, then drain them; calls per message."""
    service, handled = Service(config), 0

    @service.handler("jobs")
    async def handle(number: int) -> int:
        nonlocal handled
        if suspends:
            await asyncio.sleep(0)
        handled += 1
        return number

    await service.start(Parts(http=False, consumers=False))
    await asyncio.gather(*(service.send("jobs", number) for number in range(COUNT)))
    await service.stop()
    before = await calls(redis_client)
    await service.start(Parts(http=False))
    try:
        await until(lambda: handled == COUNT, 30)

        async def none_is_active() -> bool:
            return await redis_client.zcard("{mq:jobs}:active") == 0

        await until_async(none_is_active)
        after = await calls(redis_client)
    finally:
        await service.stop()
    assert await states(redis_client) == {b"done": COUNT}
    return sum(after[name] - before[name] for name in after) / COUNT


async def test_drain_when_the_queue_is_deep_and_handlers_end_at_once_then_redis_is_asked_once_for_many(
    config: Config, redis_client: Redis
) -> None:
    assert await calls_of_a_drain(config, redis_client, suspends=False) <= LIMIT


async def test_drain_when_the_queue_is_deep_and_handlers_suspend_then_redis_is_asked_once_for_many(
    config: Config, redis_client: Redis
) -> None:
    assert await calls_of_a_drain(config, redis_client, suspends=True) <= LIMIT


async def test_send_when_a_hundred_send_at_once_then_they_share_calls(config: Config, redis_client: Redis) -> None:
    service = Service(config)

    async def caller() -> None:
        for number in range(COUNT // 100):
            await service.send("jobs", number)

    await service.start(Parts(http=False, consumers=False))
    try:
        before = await calls(redis_client)
        await asyncio.gather(*(caller() for _ in range(100)))
        after = await calls(redis_client)
    finally:
        await service.stop()
    assert await redis_client.llen("mq:jobs") == COUNT
    assert sum(after[name] - before[name] for name in after) / COUNT <= LIMIT
