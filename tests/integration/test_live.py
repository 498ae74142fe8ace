"""Numbers: the live stream, what processes report, and the history of minutes."""

import asyncio
from typing import Any

import msgspec
import pytest
import redis.asyncio
from aiohttp import ClientSession

from mqservice import Service
from mqservice.config import ChannelConfig, Config, QueueOptions
from mqservice.connections import Connections
from mqservice.history import History
from mqservice.processes import Processes
from mqservice.runtime import Parts
from mqservice.web import live
from tests.events import listening
from tests.waiting import until_async


@pytest.fixture
def service(config: Config) -> Service:
    service = Service(msgspec.structs.replace(config, channels={"prices": ChannelConfig(key="the:prices")}))

    @service.handler("echo")
    async def echo(body: Any) -> Any:
        await asyncio.sleep(0.003)
        return body

    return service


async def got(service: Service, path: str) -> tuple[int, Any]:
    async with ClientSession() as session, session.get(service.url + path) as response:
        return response.status, await response.json()


async def test_events_when_listened_to_then_the_numbers_of_everything_come_each_second(service: Service) -> None:
    async with service:
        for number in range(3):
            await service.send("echo", number)
        await service.publish("prices", 1)
        async with listening(service.url, "/v1/events") as client:
            assert client.headers["content-type"] == "text/event-stream"

            async def settled() -> dict[str, Any]:
                event = await client.next()
                assert event is not None
                assert event.name == "numbers"
                (queue,), process = event.data["queues"], event.data["processes"][0]
                ready = queue["counts"]["done"] == 3 and queue["p95_ms"] and process["queues"] and process["streams"]
                return event.data if ready and event.data["channels"][0]["in_per_s"] else {}

            await until_async(settled, 8)
            numbers = await settled()
    assert numbers["queues"][0]["rates"]["done_per_s"] > 0
    assert 2 <= numbers["totals"]["p95_ms"] <= 20
    assert numbers["totals"]["done_per_s"] == numbers["queues"][0]["rates"]["done_per_s"]
    (process,) = numbers["processes"]
    assert (process["queues"], process["runs"], process["held"]) == (["echo"], 3, 0)
    assert process["rss_bytes"] > 1_000_000
    assert numbers["at_ms"] - process["seen_at_ms"] < 3000
    assert [(c["name"], c["receivers"]) for c in numbers["channels"]] == [("prices", 0)]
    assert numbers["redis"]["version"].startswith("Valkey")
    assert numbers["redis"]["used_memory_bytes"] > 0
    assert numbers["redis"]["away_s"] is None


async def test_events_when_several_look_then_one_reading_a_second_serves_them_and_none_when_they_left(
    service: Service, redis_client: redis.asyncio.Redis
) -> None:
    async def readings() -> int:
        stats = await redis_client.info("commandstats")
        return int(stats.get("cmdstat_info", {"calls": 0})["calls"])

    async with service:
        async with listening(service.url, "/v1/events") as one, listening(service.url, "/v1/events?limit=3") as other:
            assert {event.name for event in await other.take(3)} == {"numbers"}
            assert await other.next() is None
            await one.take(3)
            before = await readings()
            await one.take(2)
            assert 1 <= (await readings() - before) / 2 <= 4  # two INFO a reading, one of the test's

        async def quiet() -> bool:
            before = await readings()
            await asyncio.sleep(live.EVERY_S * 1.2)
            return await readings() - before == 1

        await until_async(quiet, 8)


async def test_events_when_redis_is_away_then_outages_come_and_the_numbers_again_after(
    service: Service, redis_client: redis.asyncio.Redis
) -> None:
    async with service, listening(service.url, "/v1/events") as client:
        (first,) = await client.take(1)
        assert first.name == "numbers"
        await redis_client.client_pause(4000, all=True)
        names = [event.name for event in await client.take(6)]
        assert names.count("outage") >= 2
        assert names[-1] == "numbers"


async def test_events_when_redis_is_away_then_it_says_for_how_long_and_why(
    service: Service, redis_client: redis.asyncio.Redis
) -> None:
    async with service, listening(service.url, "/v1/events") as client:
        await client.take(1)
        await redis_client.client_pause(4000, all=True)
        outages = [event.data for event in await client.take(5) if event.name == "outage"]
    assert outages[0]["away_s"] >= 1
    assert outages[1]["away_s"] > outages[0]["away_s"]
    assert "1 s" in outages[0]["error"]


async def test_events_when_reading_them_fails_for_a_fault_of_ours_then_the_client_is_cut_off_and_may_come_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a fault")

    async with service:
        with monkeypatch.context() as patch:
            patch.setattr("mqservice.backend.numbers", broken)
            async with listening(service.url, "/v1/events") as client:
                with pytest.raises(ConnectionError):
                    await client.next()
        async with listening(service.url, "/v1/events") as client:
            assert (await client.take(1))[0].name == "numbers"


async def test_processes_when_several_run_then_all_are_listed_until_they_stop(
    service: Service, config: Config, connections: Connections
) -> None:
    other = Service(config)
    async with service:
        await other.start(Parts(http=False))

        async def listed(count: int) -> bool:
            return len(await Processes(connections).all()) == count

        await until_async(lambda: listed(2))
        status, answer = await got(service, "/v1/processes")
        assert (status, len(answer["processes"])) == (200, 2)
        await other.stop()
        assert await listed(1)
    assert await listed(0)


async def test_processes_when_one_is_killed_then_it_is_forgotten(
    connections: Connections, service: Service, redis_client: redis.asyncio.Redis
) -> None:
    await redis_client.zadd("{mq}:processes", {"killed": 1})
    async with service:

        async def forgotten() -> bool:
            return await redis_client.zscore("{mq}:processes", "killed") is None

        await until_async(forgotten)
        assert await redis_client.pttl((await redis_client.keys("{mq}:processes:vm*") or ["none"])[0]) <= 10_000


async def test_docs_when_a_route_is_a_stream_then_its_curl_line_buffers_nothing_and_its_events_are_named(
    service: Service,
) -> None:
    async with service, ClientSession() as session, session.get(service.url + "/docs") as response:
        page = await response.text()
    assert "curl -N &#x27;http://localhost:5000/v1/events?limit=3&#x27;" in page
    assert "text/event-stream numbers: Numbers, outage: Outage" in page


async def test_stats_when_messages_were_handled_then_the_last_two_minutes_have_them(service: Service) -> None:
    async with service:
        for number in range(4):
            await service.send("echo", number)

        async def counted() -> bool:
            _, stats = await got(service, "/v1/queues/echo/stats")
            return bool(sum(stats["done_per_s"]) == pytest.approx(0.4) and any(stats["p95_ms"]))

        await until_async(counted)
        _, stats = await got(service, "/v1/stats?range=2m")
        assert (await got(service, "/v1/queues/nobody/stats"))[0] == 404
    assert {len(column) for column in stats.values() if isinstance(column, list)} == {12}
    assert stats["step_s"] == 10
    assert sum(stats["in_per_s"]) == pytest.approx(0.4)


async def minute_ago(redis_client: redis.asyncio.Redis) -> int:
    seconds, _ = await redis_client.time()
    return seconds // 60 - 1


async def test_sample_when_a_minute_is_over_then_it_is_noted_once_and_shown(
    connections: Connections, config: Config, redis_client: redis.asyncio.Redis
) -> None:
    queue, history = config.queue_options("q"), History(connections)
    minute = await minute_ago(redis_client)
    await redis_client.hset(f"{{mq:q}}:rate:{minute * 6}", mapping={"sent": 60, "run:1": 3, "ready": 9})
    await redis_client.hset(f"{{mq:q}}:rate:{minute * 6 + 5}", mapping={"sent": 60, "done": 30, "run:1": 1, "ready": 5})
    await history.sample(queue)
    await redis_client.hset(f"{{mq:q}}:rate:{minute * 6}", "sent", 1_000_000)
    await history.sample(queue)
    for range_, steps in (("1h", 60), ("24h", 1440)):
        stats = await history.stats(range_, [queue])  # type: ignore[arg-type]
        assert len(stats.at_ms) == steps
        at = stats.at_ms.index(minute * 60_000)
        assert (stats.in_per_s[at], stats.done_per_s[at], stats.ready[at]) == (2.0, 0.5, 5)
        assert stats.p50_ms[at] == pytest.approx(0.75)
        assert sum(stats.in_per_s) == 2.0
    ttl_s = await redis_client.ttl(f"{{mq:q}}:history:{minute // 60}")
    assert 24 * 3600 < ttl_s <= 25 * 3600


async def test_sample_when_a_queue_is_deep_then_the_present_step_has_its_depths(
    connections: Connections, config: Config, redis_client: redis.asyncio.Redis
) -> None:
    queue, history = config.queue_options("q"), History(connections)
    await redis_client.rpush("mq:q", *range(7))
    await redis_client.zadd("{mq:q}:dead", {"a": 1, "b": 2})
    await history.sample(queue)
    stats = await history.stats("2m", [queue])
    assert (max(stats.ready), max(stats.dead), max(stats.active)) == (7, 2, 0)


async def test_stats_when_several_queues_are_added_up_then_the_sums(
    connections: Connections, config: Config, redis_client: redis.asyncio.Redis
) -> None:
    queues: list[QueueOptions] = [config.queue_options(name) for name in ("p", "q")]
    minute = await minute_ago(redis_client)
    for queue in queues:
        await redis_client.hset(f"{{{queue.key}}}:rate:{minute * 6 + 1}", mapping={"sent": 60, "dead": 2})
        await History(connections).sample(queue)
    stats = await History(connections).stats("1h", queues)
    at = stats.at_ms.index(minute * 60_000)
    assert (stats.in_per_s[at], stats.dead[at]) == (2.0, 4)


async def test_report_when_several_processes_report_then_one_of_them_samples_in_each_period(
    connections: Connections, service: Service, redis_client: redis.asyncio.Redis
) -> None:
    from mqservice.processes import Report

    reports = [Report(name, "h", 1, 0, [], 0.0, 0.0, 0, 0, 0, 0) for name in ("a", "b", "c")]

    async def told() -> int:
        return sum([await Processes(connections).put(report) for report in reports])

    seconds, _ = await redis_client.time()
    first = await told() + await told()
    same_period = (await redis_client.time())[0] // 10 == seconds // 10
    assert first == 1 if same_period else first in (1, 2)
    assert [process.name for process in await Processes(connections).all()] == ["a", "b", "c"]
