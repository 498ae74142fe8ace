"""What becomes of messages, as streams over real HTTP: of one message, and of a queue."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
from aiohttp import ClientSession

from mqservice import Message, Reject, Retry, Service, queue_streams
from mqservice.config import Config
from mqservice.web import watching
from tests.events import Event, EventClient, listening
from tests.waiting import until_async


@pytest.fixture
async def service(config: Config, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setattr(watching, "LOOK_S", 0.05)
    service = Service(config)
    gate = asyncio.Event()

    @service.handler("gated")
    async def gated(body: str, message: Message) -> str:
        await message.progress(0.5, "half way")
        await gate.wait()
        if body == "reject":
            raise Reject("no")
        return body

    @service.handler("twice")
    async def twice(body: Any, message: Message) -> int:
        if message.attempt == 1:
            raise Retry(delay=0.15)
        return message.attempt

    @service.handler("open")
    async def open_(body: Any) -> None:
        gate.set()

    async with service:
        yield service


async def all_of(client: EventClient) -> list[Event]:
    events = []
    while event := await client.next():
        events.append(event)
    return events


def shown(events: list[Event]) -> list[object]:
    """What a stream said: states, and the texts of progress."""
    return [event.data["state"] if event.name == "state" else event.data.get("text") for event in events]


# One message


async def test_message_events_when_it_is_handled_then_states_and_progress_come_and_the_stream_ends(
    service: Service,
) -> None:
    await service.send("gated", "go", id="a")
    async with listening(service.url, "/v1/queues/gated/messages/a/events") as client:
        events = []
        while not events or (shown(events)[-1] != "half way" and events[-1].data.get("progress") is None):
            events += await client.take(1)
        await service.send("open", 1)
        events += await all_of(client)
    assert [said for said in shown(events) if said not in ("ready", "half way")] == ["active", "done"]
    assert (events[-1].data["result"], events[-1].data["progress"]["text"]) == ("go", "half way")


async def test_message_events_when_it_is_tried_again_then_each_attempt_is_seen(service: Service) -> None:
    await service.send("twice", 1, id="a", delay=0.2)
    async with listening(service.url, "/v1/queues/twice/messages/a/events") as client:
        events = await all_of(client)
    assert shown(events)[0] == "scheduled"
    assert shown(events)[-1] == "done"
    assert [event.data.get("attempts_used") for event in events if event.data["state"] == "scheduled"][-1] == 1


async def test_message_events_when_it_has_ended_then_that_is_said_and_the_stream_ends(service: Service) -> None:
    sent = await service.send("open", 1)
    await sent.result(5)
    async with listening(service.url, f"/v1/queues/open/messages/{sent.id}/events") as client:
        assert shown(await all_of(client)) == ["done"]


async def test_message_events_when_it_is_purged_then_it_is_gone(service: Service) -> None:
    await service.send("nobody", 1, id="a")
    async with listening(service.url, "/v1/queues/nobody/messages/a/events") as client:
        await client.take(1)
        async with ClientSession() as session:
            await session.delete(f"{service.url}/v1/queues/nobody/messages?state=ready")
        (gone,) = await all_of(client)
    assert (gone.name, gone.data) == ("gone", {"id": "a"})


async def test_message_events_when_there_is_no_such_message_then_404(service: Service) -> None:
    async with listening(service.url, "/v1/queues/gated/messages/none/events") as client:
        assert client.status == 404


async def test_message_events_when_redis_is_away_then_the_stream_goes_on(
    service: Service, redis_client: redis.asyncio.Redis
) -> None:
    await service.send("gated", "reject", id="a")
    async with listening(service.url, "/v1/queues/gated/messages/a/events") as client:
        await client.take(1)
        await redis_client.client_kill_filter(_type="normal", skipme=True)
        await redis_client.client_pause(500, all=True)
        await service.send("open", 1)
        assert shown(await all_of(client))[-1] == "dead"


# A queue


async def test_queue_events_when_messages_move_then_every_state_is_told(service: Service) -> None:
    async with listening(service.url, "/v1/queues/twice/events") as client:
        await service.send("twice", 1, id="a")
        events = await client.take(5)
    assert [(event.name, event.data["id"], event.data["state"]) for event in events] == [
        ("state", "a", state) for state in ("ready", "active", "scheduled", "active", "done")
    ]
    assert events[0].data["at_ms"] <= events[-1].data["at_ms"]


async def test_queue_events_when_people_act_then_cancelled_dead_ready_and_purged_are_told(service: Service) -> None:
    @service.handler("unused")
    async def unused(body: Any) -> None: ...

    async with listening(service.url, "/v1/queues/nobody/events") as client, ClientSession() as session:
        url = f"{service.url}/v1/queues/nobody/messages"
        await service.send("nobody", 1, id="a", delay=60)
        await session.delete(f"{url}/a")
        await service.send("nobody", 1, id="b")
        await session.delete(f"{url}?state=ready")
        events = await client.take(4)
    assert [(event.data["id"], event.data["state"]) for event in events] == [
        ("a", "scheduled"),
        ("a", "cancelled"),
        ("b", "ready"),
        ("b", "purged"),
    ]
    async with listening(service.url, "/v1/queues/gated/events") as client, ClientSession() as session:
        await service.send("gated", "reject", id="a")
        await service.send("open", 1)
        await client.take(3)
        await session.post(f"{service.url}/v1/queues/gated/messages/a/replay")
        events = await client.take(1)
    assert [(event.data["id"], event.data["state"]) for event in events] == [("a", "ready")]


async def test_queue_events_when_there_are_too_many_then_the_rest_is_counted(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_streams, "MOST_PER_S", 10)
    async with listening(service.url, "/v1/queues/nobody/events") as client:
        async with ClientSession() as session:
            batch = [{"body": n} for n in range(500)]
            await session.post(f"{service.url}/v1/queues/nobody/messages/batch", json=batch)
        told = skipped = 0
        while told + skipped < 500:
            (event,) = await client.take(1)
            told += event.name == "state"
            skipped += event.data["count"] if event.name == "skipped" else 0
    assert told + skipped == 500
    assert told <= 200


async def test_queue_events_when_nobody_watches_then_the_scripts_publish_nothing(
    service: Service, redis_client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_streams, "_WATCH_MS", 300)
    async with redis_client.pubsub() as pubsub:
        await pubsub.psubscribe("mq:queue:*")
        assert await pubsub.get_message(timeout=5)
        await service.send("open", 1)
        async with listening(service.url, "/v1/queues/open/events") as client:
            sent = await service.send("open", 2)
            await client.take(3)

        async def over() -> bool:
            seconds, micros = await redis_client.time()
            until_ms = int(await redis_client.hget("{mq:open}:info", "watched"))
            return until_ms < seconds * 1000 + micros // 1000

        await until_async(over)
        await (await service.send("open", 3)).result(5)
        heard = b""
        while message := await pubsub.get_message(ignore_subscribe_messages=True, timeout=0.3):
            heard += message["data"] if message["type"] == "pmessage" else b""
    states = [line.split()[0] for line in heard.split(b"\n") if sent.id.encode() in line]
    assert states == [b"ready", b"active", b"done"]
    assert heard.count(b"ready ") == 1


async def test_queue_events_when_somebody_goes_on_watching_then_it_is_asked_for_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_streams, "_WATCH_MS", 2500)
    monkeypatch.setattr(queue_streams, "_RENEW_S", 1.0)
    async with listening(service.url, "/v1/queues/open/events") as client:
        for number in range(8):
            await service.send("open", number)
            assert [event.data["state"] for event in await client.take(3)] == ["ready", "active", "done"]
            await asyncio.sleep(0.5)


async def test_queue_events_when_the_subscription_is_lost_then_it_says_that_some_may_be_missing(
    service: Service, redis_client: redis.asyncio.Redis
) -> None:
    async with listening(service.url, "/v1/queues/open/events") as client:
        await redis_client.client_kill_filter(_type="pubsub")
        (event,) = await client.take(1)
        assert (event.name, event.data) == ("skipped", {"count": None})
        await service.send("open", 1)
        assert len(await client.take(3)) == 3
