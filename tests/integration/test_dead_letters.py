"""A hundred thousand dead letters: looked at and replayed without holding Redis up."""

from redis.asyncio import Redis

from mqservice import Service
from mqservice.config import Config
from mqservice.runtime import Parts

K = "mq:jobs"
COUNT = 100_000
EVERY = 50  # one in so many has the rarer reason


async def bury_many(redis: Redis) -> None:
    """Write dead messages as the scripts leave them."""
    for start in range(0, COUNT, 2_000):
        async with redis.pipeline(transaction=False) as pipeline:
            for n in range(start, start + 2_000):
                reason = "rejected" if n % EVERY == 0 else "failed"
                fields = {"body": "1", "state": "dead", "sent": 1, "finished": 1_000 + n, "reason": reason}
                pipeline.hset(f"{{{K}}}:m:d{n}", mapping=fields)
                pipeline.zadd(f"{{{K}}}:dead", {f"d{n}": 1_000 + n})
            await pipeline.execute()


async def usage(redis: Redis) -> dict[str, tuple[int, int]]:
    """How often each command was called since the last reset, and how many us all its calls took."""
    stats = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): (stat["calls"], stat["usec"]) for name, stat in stats.items()}


async def test_dead_letters_when_a_hundred_thousand_then_listed_and_replayed_without_blocking_redis(
    config: Config, redis_client: Redis
) -> None:
    await bury_many(redis_client)
    service = Service(config)
    await service.start(Parts(http=False, consumers=False))
    try:
        views, operations = service._running().backend.views("jobs"), service._running().backend.operations("jobs")
        await redis_client.config_resetstat()
        page = await views.page("dead", 100, None)
        assert [message.id for message in page.messages] == [f"d{n}" for n in range(COUNT - 1, COUNT - 101, -1)]
        assert await operations.replay_all(reason="rejected", limit=1_000) == 1_000
        assert await operations.replay_all(reason="failed", limit=1_000) == 1_000
        used = await usage(redis_client)
        assert sum(us for _, us in used.values()) < 1_000_000
        assert used["evalsha"][0] >= 2_000 / 100
        # The mean: a single call may be held up by what else the machine does.
        assert {name: us / calls for name, (calls, us) in used.items() if us / calls > 10_000} == {}
        assert await redis_client.llen(K) == 2_000
        assert await redis_client.zcard(f"{{{K}}}:dead") == COUNT - 2_000
    finally:
        await service.stop()
