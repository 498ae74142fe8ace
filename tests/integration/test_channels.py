"""Publish and subscribe on a real server, through lost and silent connections."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from mqservice import Message, Service
from mqservice.channels import Channels
from mqservice.config import Config
from mqservice.connections import Connections
from mqservice.runtime import Parts
from mqservice.subscription import Name, Subscription
from tests.waiting import until, until_async


@asynccontextmanager
async def following(subscription: Subscription) -> AsyncIterator[None]:
    running = asyncio.create_task(subscription.run(), name="subscription under test")
    try:
        await asyncio.wait_for(subscription.live.wait(), 5)
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.fixture
def heard() -> list[tuple[str, str, bytes]]:
    return []


@pytest.fixture
def deliver(heard: list[tuple[str, str, bytes]]) -> Callable[[str, str, bytes], None]:
    return lambda followed, channel, body: heard.append((followed, channel, body))


async def test_subscription_when_published_then_channels_and_patterns_are_told_apart(
    connections: Connections, deliver: Callable[[str, str, bytes], None], heard: list[tuple[str, str, bytes]]
) -> None:
    async with following(Subscription(connections, ["a"], ["b.*"], deliver)):
        channels = Channels(connections, Config().channel_options)
        assert await channels.publish("a", b"1") == ("", 1)
        assert await channels.publish("b.c", b"\xff") == ("", 1)
        assert await channels.publish("nobody", b"3") == ("", 0)
        await until(lambda: heard == [("a", "a", b"1"), ("b.*", "b.c", b"\xff")])


async def test_subscription_when_its_connection_is_killed_then_it_follows_again(
    connections: Connections,
    deliver: Callable[[str, str, bytes], None],
    heard: list[tuple[str, str, bytes]],
    redis_client: Redis,
) -> None:
    async with following(Subscription(connections, ["a"], [], deliver)):
        for number in range(5):
            await redis_client.client_kill_filter(_type="pubsub")

            async def heard_again(body: bytes = b"%d" % number) -> bool:
                await redis_client.publish("a", body)  # also reaches a killed connection that is not closed yet
                return ("a", "a", body) in heard

            await until_async(heard_again)


async def test_subscription_when_redis_is_silent_then_noticed_and_built_anew(
    connections: Connections,
    deliver: Callable[[str, str, bytes], None],
    heard: list[tuple[str, str, bytes]],
    redis_client: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mqservice.subscription.PING_AFTER_S", 0.05)
    monkeypatch.setattr("mqservice.subscription.SILENT_S", 0.2)
    subscription = Subscription(connections, ["a"], [], deliver)
    async with following(subscription):
        await redis_client.client_pause(1500, all=True)
        await until(lambda: not subscription.live.is_set())
        await redis_client.client_unpause()
        await until(subscription.live.is_set)
        await redis_client.publish("a", b"back")
        await until(lambda: heard == [("a", "a", b"back")])


async def test_subscription_when_names_come_and_go_while_it_runs_then_only_those_wanted_are_followed(
    connections: Connections,
    deliver: Callable[[str, str, bytes], None],
    heard: list[tuple[str, str, bytes]],
    redis_client: Redis,
) -> None:
    subscription = Subscription(connections, ["own"], [], deliver)
    async with following(subscription):
        for _ in range(20):  # dropped and wanted again before Redis was told of either
            await subscription.add([Name("a"), Name("b.*", True)])
            assert subscription.follows(Name("a"))
            assert await redis_client.publish("a", b"") == 1
            subscription.drop([Name("a"), Name("b.*", True)])
            await asyncio.sleep(0)
        await subscription.add([Name("a")])
        await subscription.add([Name("a")])
        subscription.drop([Name("a")])
        await until_async(lambda: _numpat(redis_client, 0))
        assert await redis_client.pubsub_numsub("a") == [(b"a", 1)]
        subscription.drop([Name("a")])

        async def gone() -> bool:
            return bool(await redis_client.pubsub_numsub("a") == [(b"a", 0)])

        await until_async(gone)
        assert not subscription.follows(Name("a"))
        assert len(heard) == 20


async def test_subscription_when_a_name_is_added_during_an_outage_then_it_is_followed_after(
    connections: Connections, deliver: Callable[[str, str, bytes], None], redis_client: Redis
) -> None:
    subscription = Subscription(connections, ["own"], [], deliver)
    adding: list[asyncio.Task[None]] = []

    def on_lost() -> None:
        if adding:
            return  # the end of the test
        assert not subscription.follows(Name("own"))
        adding.append(asyncio.create_task(subscription.add([Name("a")]), name="adding"))

    subscription.on_lost.append(on_lost)
    async with following(subscription):
        await redis_client.client_kill_filter(_type="pubsub")
        await until(lambda: adding)
        await asyncio.wait_for(adding[0], 5)
        assert await redis_client.publish("a", b"") == 1
        assert subscription.follows(Name("own"))


async def _numpat(redis_client: Redis, count: int) -> bool:
    return bool(await redis_client.pubsub_numpat() == count)


async def test_subscriber_when_published_through_a_service_then_called_with_the_decoded_body(config: Config) -> None:
    service, seen = Service(config), []

    @service.subscriber("prices.*")
    async def on_price(price: dict[str, int], message: Message) -> None:
        seen.append((message.queue, price))

    @service.subscriber("news", key="the:news")
    def on_news(text: str) -> None:
        seen.append(("news", text))

    await service.start(Parts(http=False))
    try:
        assert await service.publish("prices.tea", {"cents": 7}) == 1
        assert await service.publish("news", "good") == 1
        await until(lambda: ("prices.tea", {"cents": 7}) in seen and ("news", "good") in seen)
    finally:
        await service.stop()
