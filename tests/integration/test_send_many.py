"""Many messages in one call, from Python."""

import pytest
from redis.asyncio import Redis

from mqservice import Service
from mqservice.config import Config, QueueOverrides
from mqservice.errors import QueueFull
from tests.waiting import until


@pytest.fixture
def service(config: Config) -> Service:
    service = Service(config)

    @service.handler("double")
    async def double(number: int) -> int:
        return 2 * number

    return service


async def test_send_many_when_sent_then_each_is_handled_and_tells_its_result(service: Service) -> None:
    async with service:
        sent = await service.send_many("double", range(500))
        assert [one.state for one in sent] == ["ready"] * 500
        assert await sent[499].result(timeout=10) == 998
        assert await sent[0].result(timeout=10) == 0


async def test_send_many_when_sent_again_with_the_same_ids_then_each_is_there_once(
    service: Service, redis_client: Redis
) -> None:
    async with service:
        ids = [f"order-{number}" for number in range(10)]
        first = await service.send_many("later", range(10), ids=ids, delay=60)
        again = await service.send_many("later", range(10), ids=ids, delay=60)
        assert [(one.id, one.state, one.existed) for one in first] == [(name, "scheduled", False) for name in ids]
        assert [(one.id, one.state, one.existed) for one in again] == [(name, "scheduled", True) for name in ids]
        assert await redis_client.zcard("{mq:later}:scheduled") == 10


async def test_send_many_when_there_is_room_for_some_only_then_none_is_kept(
    config: Config, redis_client: Redis
) -> None:
    import msgspec

    config = msgspec.structs.replace(config, queues={"short": QueueOverrides(max_length=5)})
    async with Service(config) as service:
        with pytest.raises(QueueFull):
            await service.send_many("short", range(6))
        assert await redis_client.llen("mq:short") == 0
        assert len(await service.send_many("short", range(5))) == 5


async def test_send_many_when_none_or_too_many_or_ids_are_missing_then_told(service: Service) -> None:
    async with service:
        assert await service.send_many("double", []) == []
        with pytest.raises(ValueError, match="at most 10000"):
            await service.send_many("double", range(10_001))
        with pytest.raises(ValueError, match="1 ids for 2 bodies"):
            await service.send_many("double", range(2), ids=["a"])


async def test_send_many_when_the_queue_is_at_most_once_then_pushed_in_order(config: Config) -> None:
    service, seen = Service(config), []

    @service.handler("plain", delivery="at-most-once", concurrency=1)
    async def take(number: int) -> None:
        seen.append(number)

    async with service:
        await service.send_many(take, range(100))
        await until(lambda: seen == list(range(100)))
