"""`delivery = "at-most-once"`: the tutorial's plain BLPOP."""

import asyncio

from redis.asyncio import Redis

from mqservice import Service
from mqservice.config import Config
from mqservice.message import Outgoing
from mqservice.runtime import Parts
from tests.waiting import until

K = "mq:jobs"


def popping(config: Config, seen: list[str], gate: asyncio.Event | None = None, concurrency: int = 10) -> Service:
    service = Service(config)

    @service.handler("jobs", delivery="at-most-once", concurrency=concurrency)
    async def handle(body: str) -> None:
        seen.append(body)
        if gate is not None:
            await gate.wait()
        if body == "fails":
            raise ValueError(body)

    return service


async def test_pop_when_pushed_by_anybody_or_sent_then_handled_and_nothing_is_kept(
    config: Config, redis_client: Redis
) -> None:
    seen: list[str] = []
    service = popping(config, seen)
    await service.start(Parts(http=False))
    try:
        await redis_client.lpush(K, "7")
        sent = await service.send("jobs", "fails")
        await until(lambda: sorted(seen) == ["7", "fails"])
        assert (sent.state, sent.existed) == ("ready", False)
        assert not [key for key in await redis_client.keys() if b":m:" in key]
        assert await redis_client.llen(K) == 0
    finally:
        await service.stop()


async def test_pop_when_slots_are_full_then_the_rest_stays_in_redis(config: Config, redis_client: Redis) -> None:
    seen: list[str] = []
    gate = asyncio.Event()
    service = popping(config, seen, gate, concurrency=2)
    await service.start(Parts(http=False))
    try:
        await redis_client.rpush(K, *range(10))
        await until(lambda: len(seen) == 2)
        assert await redis_client.llen(K) == 8
        gate.set()
        await until(lambda: seen == [f"{n}" for n in range(10)])
    finally:
        await service.stop()


async def test_pop_when_stopped_then_what_was_popped_is_finished_and_the_rest_stays(
    config: Config, redis_client: Redis
) -> None:
    seen: list[str] = []
    gate = asyncio.Event()
    service = popping(config, seen, gate, concurrency=1)
    await service.start(Parts(http=False))
    await redis_client.rpush(K, "a", "b")
    await until(lambda: seen == ["a"])
    stopping = asyncio.create_task(service.stop(), name="stopping")
    gate.set()
    await stopping
    assert seen == ["a"]
    assert await redis_client.lrange(K, 0, -1) == [b"b"]


async def test_pop_when_a_message_has_a_record_then_its_body_is_handled_and_the_record_goes(
    config: Config, redis_client: Redis
) -> None:
    sender = Service(config)
    await sender.start(Parts(http=False, consumers=False))
    await sender._running().backend.broker("jobs").send(Outgoing("recorded", b'"from before"'))
    await sender.stop()
    seen: list[str] = []
    service = popping(config, seen)
    await service.start(Parts(http=False))
    try:
        await until(lambda: seen == ["from before"])
        assert not await redis_client.exists(f"{{{K}}}:m:recorded")
    finally:
        await service.stop()


async def test_pop_when_an_entry_names_no_record_of_ours_then_those_popped_with_it_are_handled(
    config: Config, redis_client: Redis
) -> None:
    seen: list[str] = []
    service = popping(config, seen)
    await redis_client.set(f"{{{K}}}:m:m1", "a stranger's")
    await redis_client.rpush(K, "first", b"\0mq:m1", b"\0mq:\xff\xfe", "last")
    await service.start(Parts(http=False))
    try:
        await until(lambda: seen == ["first", "last"])
        assert await redis_client.get(f"{{{K}}}:m:m1") == b"a stranger's"
    finally:
        await service.stop()
