"""Event streams of channels, over real HTTP: live, resumed, through outages, slow clients, a stop, and a crowd."""

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import redis.asyncio
from aiohttp import ClientSession

from mqservice import Service
from mqservice.channel_history import ChannelHistory, EventId
from mqservice.config import ChannelConfig, Config, RedisConfig
from mqservice.connections import Connections
from mqservice.embedded import private_server
from mqservice.web import sse
from tests.events import EventClient, listening
from tests.waiting import until, until_async

KEPT = "/v1/channels/kept/events"
LIVE = "/v1/channels/live/events"


@pytest.fixture
def config(config: Config) -> Config:
    channels = {
        "kept": ChannelConfig(key="the:kept", history=1000),
        "short": ChannelConfig(history=5),
        "brief": ChannelConfig(history=100, history_s=0.2),
    }
    return msgspec.structs.replace(config, channels=channels)


@pytest.fixture
async def service(config: Config) -> AsyncIterator[Service]:
    async with Service(config) as service:
        yield service


async def publish(service: Service, channel: str, *bodies: object) -> list[str]:
    """Publish over HTTP; the ids of the answers."""
    ids = []
    async with ClientSession() as session:
        for body in bodies:
            url = f"{service.url}/v1/channels/{channel}/messages"
            async with session.post(url, json=body) as response:
                assert response.status == 202
                ids.append((await response.json())["id"])
    return ids


async def bodies(client: EventClient, count: int, timeout_s: float = 5.0) -> list[object]:
    return [event.data["body"] for event in await client.take(count, timeout_s)]


# Live


async def test_events_when_published_then_each_comes_with_its_channel(service: Service) -> None:
    async with listening(service.url, LIVE) as client:
        assert client.headers["content-type"] == "text/event-stream"
        await publish(service, "live", {"a": 1}, "text", 7)
        events = await client.take(3)
    assert client.retry_ms == 2000
    assert [(event.name, event.data, event.id) for event in events] == [
        ("message", {"channel": "live", "body": {"a": 1}}, ""),
        ("message", {"channel": "live", "body": "text"}, ""),
        ("message", {"channel": "live", "body": 7}, ""),
    ]


async def test_events_when_another_client_of_redis_publishes_then_it_comes_too(
    service: Service, redis_client: redis.asyncio.Redis
) -> None:
    async with listening(service.url, LIVE) as live, listening(service.url, KEPT) as kept:
        for body in (b"7", b"two\nlines", b"\xff"):
            await redis_client.publish("live", body)
            await redis_client.publish("the:kept", body)
        assert await bodies(live, 3) == [7, "two\nlines", {"base64": "/w=="}]
        foreign = await kept.take(3)
        (event_id,) = await publish(service, "kept", 1)
        (ours,) = await kept.take(1)
    assert {event.id for event in foreign} == {""}
    assert ours.id == event_id


async def test_events_when_a_pattern_is_followed_then_all_that_fits_comes_but_what_is_the_services_own(
    service: Service, redis_client: redis.asyncio.Redis
) -> None:
    async with listening(service.url, "/v1/channels/*e*/events") as client:
        await redis_client.publish("mq:process:nobody", "ended 1 q")
        await publish(service, "prices.eur", 1)
        await publish(service, "kept", 2)
        await publish(service, "no", 3)
        await publish(service, "prices.usd", 4)
        events = await client.take(3)
    assert [(event.data["channel"], event.data["body"]) for event in events] == [
        ("prices.eur", 1),
        ("the:kept", 2),
        ("prices.usd", 4),
    ]


@pytest.mark.parametrize("path", ["/v1/channels/mq:process:x/events", "/v1/channels/a%3Fb/events"])
async def test_events_when_the_channel_is_none_for_clients_then_refused(service: Service, path: str) -> None:
    async with ClientSession() as session, session.get(service.url + path) as response:
        assert (response.status, (await response.json())["type"]) == (400, "/problems/invalid-name")


async def test_publish_when_the_channel_is_the_services_own_then_refused(service: Service) -> None:
    url = f"{service.url}/v1/channels/mq:process:x/messages"
    async with ClientSession() as session, session.post(url, json=1) as response:
        assert (response.status, (await response.json())["type"]) == (400, "/problems/invalid-name")


async def test_events_when_limited_then_the_stream_ends_after_so_many(service: Service) -> None:
    async with listening(service.url, f"{LIVE}?limit=2") as client:
        await publish(service, "live", 1, 2, 3)
        assert await bodies(client, 2) == [1, 2]
        assert await client.next() is None
    async with listening(service.url, f"{KEPT}?limit=2&last_event_id=0-0") as client:
        await publish(service, "kept", 1, 2, 3)
        assert await bodies(client, 2) == [1, 2]
        assert await client.next() is None


async def test_events_when_nothing_is_published_then_a_comment_comes_now_and_then(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.05)
    async with listening(service.url, LIVE) as client:
        waiting = asyncio.create_task(client.next(), name="waiting")
        await until(lambda: client.comments >= 3)
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_events_when_the_last_client_leaves_then_the_channel_is_followed_no_longer(
    service: Service, redis_client: redis.asyncio.Redis
) -> None:
    async def followers() -> list[int]:
        return [count for _, count in await redis_client.pubsub_numsub("the:kept", "mq:channel:the:kept")]

    async with listening(service.url, KEPT), listening(service.url, KEPT):
        assert await followers() == [1, 1]
    await until_async(lambda: _is([0, 0], followers()))
    async with listening(service.url, KEPT) as client:
        await publish(service, "kept", 1)
        assert await bodies(client, 1) == [1]
    await until_async(lambda: _is([0, 0], followers()))


async def _is(expected: object, awaitable: object) -> bool:
    return bool(await awaitable == expected)  # type: ignore[misc]


# Resumed


async def test_events_when_resumed_then_what_was_missed_comes_first_and_each_once(service: Service) -> None:
    first, *_ = await publish(service, "kept", *range(200))
    for path, headers in ((KEPT, {"Last_Event_ID": first}), (f"{KEPT}?last_event_id={first}", {})):
        async with listening(service.url, path, **headers) as client:
            publishing = asyncio.create_task(publish(service, "kept", *range(200, 230)), name="publishing")
            events = await client.take(229)
            await publishing
        assert [event.data["body"] for event in events] == list(range(1, 230))
        await publish(service, "kept", -1)
        first = (await publish(service, "kept", 0))[0]
        await publish(service, "kept", *range(1, 200))


async def test_events_when_the_gap_is_larger_than_the_history_then_it_is_told_first(service: Service) -> None:
    first, *_ = await publish(service, "short", *range(10))
    async with listening(service.url, "/v1/channels/short/events", Last_Event_ID=first) as client:
        gap, *rest = await client.take(6)
    assert (gap.name, gap.data, gap.id) == ("gap", {"missed": 4}, "")
    assert [event.data["body"] for event in rest] == [5, 6, 7, 8, 9]


async def test_events_when_the_last_that_was_seen_is_just_gone_then_there_is_no_gap(service: Service) -> None:
    first, *_ = await publish(service, "short", *range(6))
    async with listening(service.url, "/v1/channels/short/events", Last_Event_ID=first) as client:
        assert await bodies(client, 5) == [1, 2, 3, 4, 5]


async def test_events_when_the_history_has_expired_then_the_gap_is_told_at_once(
    service: Service, redis_client: redis.asyncio.Redis
) -> None:
    first, _, last = await publish(service, "brief", 1, 2, 3)

    async def expired() -> bool:
        return not await redis_client.exists("mq:channel:brief")

    await until_async(expired)
    async with listening(service.url, "/v1/channels/brief/events", Last_Event_ID=first) as client:
        (gap,) = await client.take(1)
        assert (gap.name, gap.data) == ("gap", {"missed": 2})
        await publish(service, "brief", 4)
        assert await bodies(client, 1) == [4]
    async with listening(service.url, "/v1/channels/brief/events", Last_Event_ID=last) as client:
        await publish(service, "brief", 5)
        gap_or_4 = (await client.take(1))[0].data
        assert gap_or_4 in ({"missed": 1}, {"channel": "brief", "body": 4})
        assert await bodies(client, 1) == [5]


async def test_events_when_redis_has_lost_the_history_then_a_gap_of_unknown_size_is_told(
    service: Service, redis_client: redis.asyncio.Redis
) -> None:
    *_, last = await publish(service, "kept", 1, 2, 3)
    await redis_client.flushall()
    await publish(service, "kept", 4)
    async with listening(service.url, KEPT, Last_Event_ID=last) as client:
        gap, event = await client.take(2)
    assert (gap.name, gap.data) == ("gap", {"missed": None})
    assert event.data["body"] == 4


async def test_events_when_reading_the_history_fails_for_a_fault_of_ours_then_the_client_is_cut_off(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(ChannelHistory, "after", broken)
    async with listening(service.url, KEPT, Last_Event_ID="0-0") as client:
        with pytest.raises(ConnectionError):
            await client.next()


async def test_events_when_a_channel_keeps_nothing_and_one_resumes_then_a_gap_is_told(service: Service) -> None:
    async with listening(service.url, LIVE, Last_Event_ID="1-1") as client:
        (gap,) = await client.take(1)
    assert (gap.name, gap.data) == ("gap", {"missed": None})


async def test_events_when_the_service_restarts_then_resumed_without_a_gap_and_none_twice(config: Config) -> None:
    seen: list[int] = []
    last = "0-0"
    async with Service(config) as publisher:
        sending = asyncio.create_task(_publish_slowly(publisher, 300), name="publishing")
        while len(seen) < 300:
            service = Service(config)
            await service.start()
            async with listening(service.url, KEPT, Last_Event_ID=last) as client:
                for _ in range(min(60, 300 - len(seen))):
                    (event,) = await client.take(1)
                    seen.append(event.data["body"])
                    last = event.id
                await service.stop()
        await sending
    assert seen == list(range(300))


async def _publish_slowly(service: Service, count: int) -> None:
    for number in range(count):
        await service.publish("kept", number)
        await asyncio.sleep(0.002)


async def test_events_when_clients_come_and_go_while_messages_come_then_each_has_all_once(service: Service) -> None:
    sending = asyncio.create_task(_publish_slowly(service, 300), name="publishing")

    async def client(stay: int) -> list[object]:
        seen: list[object] = []
        last = "0-0"
        while len(seen) < 300:
            async with listening(service.url, KEPT, Last_Event_ID=last) as client:
                for _ in range(min(stay, 300 - len(seen))):
                    (event,) = await client.take(1)
                    assert event.name == "message"
                    seen.append(event.data["body"])
                    last = event.id
        return seen

    for seen in await asyncio.gather(*(client(stay) for stay in (1, 2, 3, 7, 20, 300))):
        assert seen == list(range(300))
    await sending


async def test_publish_when_repeated_with_its_token_then_published_once(
    connections: Connections, config: Config, redis_client: redis.asyncio.Redis
) -> None:
    history = ChannelHistory(connections, config.channel_options("kept"))
    first = await history.publish(b"1", "token")
    assert await history.publish(b"1", "token") == first
    assert (await history.publish(b"2", "other")).id != first.id
    assert [body for _, body in await history.after(EventId(0, 0))] == [b"1", b"2"]


# Outages


async def test_events_when_the_subscription_is_lost_then_a_kept_channel_has_no_gap_and_a_live_one_tells(
    service: Service, redis_client: redis.asyncio.Redis, config: Config
) -> None:
    async with listening(service.url, KEPT) as kept, listening(service.url, LIVE) as live:
        await publish(service, "kept", 0)
        await publish(service, "live", 0)
        for round_ in range(5):
            # In one go: nothing that is published here can have been delivered.
            async with redis_client.pipeline(transaction=True) as pipeline:
                pipeline.client_kill_filter(_type="pubsub")
                pipeline.ping()
                await pipeline.execute()
            await publish(service, "kept", *range(round_ * 10 + 1, round_ * 10 + 11))
        assert await bodies(kept, 51) == list(range(51))
        first, gap = await live.take(2)
        assert (first.data["body"], gap.name, gap.data) == (0, "gap", {"missed": None})


async def test_events_when_redis_is_away_then_the_stream_stays_and_goes_on(
    service: Service, redis_client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqservice.subscription.PING_AFTER_S", 0.05)
    monkeypatch.setattr("mqservice.subscription.SILENT_S", 0.2)
    async with listening(service.url, KEPT) as client:
        await publish(service, "kept", 1)
        await redis_client.client_pause(1000, all=True)
        sending = asyncio.create_task(publish(service, "kept", 2, 3), name="publishing")
        assert await bodies(client, 3) == [1, 2, 3]
        await sending


async def test_events_when_redis_is_killed_and_restarted_then_the_stream_stays_and_has_no_gap(config: Config) -> None:
    async with private_server() as server:
        config = msgspec.structs.replace(config, redis=RedisConfig(url=server.url(5), embedded="never"))
        async with (
            Service(config) as service,
            listening(service.url, KEPT) as kept,
            listening(service.url, "/v1/events") as numbers,
        ):
            sending = asyncio.create_task(_publish_slowly(service, 300), name="publishing")
            seen = await bodies(kept, 50)
            pid = server.server_pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await server.revive()
            seen += await bodies(kept, 250)
            await sending
            assert seen == list(range(300))
            while (event := await numbers.next()) is None or event.name != "numbers":
                assert event is not None


# Many, slow, and the end


async def test_events_when_a_client_is_slow_then_it_is_cut_off_and_resumes_and_the_fast_one_misses_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "BUFFER_BYTES", 100_000)
    text = "x" * 50_000
    async with listening(service.url, KEPT) as slow, listening(service.url, KEPT) as fast:
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(400):
            await service.publish("kept", [number, text])
            (event,) = await fast.take(1)
            assert event.data["body"][0] == number
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
        seen, last = [], ""
        with contextlib.suppress(ConnectionError):
            while event := await slow.next():
                seen.append(event.data["body"][0])
                last = event.id
        assert seen == list(range(len(seen)))
        assert len(seen) < 400
    async with listening(service.url, KEPT, Last_Event_ID=last) as slow:
        for number in range(len(seen), 400):
            (event,) = await slow.take(1)
            assert event.data["body"][0] == number


async def test_stop_when_streams_are_open_then_it_takes_under_a_second_and_they_end_well(config: Config) -> None:
    service = Service(config)
    await service.start()
    async with contextlib.AsyncExitStack() as stack:
        paths = (KEPT, LIVE, "/v1/channels/a*/events", "/v1/events")
        clients = [await stack.enter_async_context(listening(service.url, paths[n % 4])) for n in range(50)]
        started = time.monotonic()
        await service.stop()
        assert time.monotonic() - started < 1
        for client in clients:
            while await client.next() is not None:
                pass


async def test_stop_when_a_client_takes_nothing_then_it_is_cut_off(config: Config) -> None:
    service = Service(config)
    await service.start()
    async with listening(service.url, LIVE) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        server = service._running().server
        assert server is not None
        (feed,) = server.streams._feeds

        async def stuck() -> bool:
            await service.publish("live", "x" * 60_000)
            return feed.writing

        await until_async(stuck, 20)
        assert not feed.overflowed
        started = time.monotonic()
        await service.stop()
        assert time.monotonic() - started < 1


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of every connection are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_events_when_a_thousand_clients_listen_then_each_gets_everything_over_one_subscription(
    service: Service, redis_client: redis.asyncio.Redis
) -> None:
    async with _crowd(service, KEPT, 1000) as clients:
        assert await redis_client.pubsub_numsub("the:kept") == [(b"the:kept", 1)]
        for number in range(10):
            await service.publish("kept", number)
        seen = await asyncio.gather(*(bodies(client, 10, 30) for client in clients))
    assert all(each == list(range(10)) for each in seen)
    assert len(seen) == 1000


@asynccontextmanager
async def _crowd(service: Service, path: str, count: int) -> AsyncIterator[list[EventClient]]:
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for _ in range(0, count, 50):
            opened = (stack.enter_async_context(listening(service.url, path)) for _ in range(50))
            clients += await asyncio.gather(*opened)
        yield clients
