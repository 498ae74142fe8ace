"""Metrics: what a scrape says, of one process and of all, beside what Redis and the handlers know."""

import asyncio
import json
import re
from typing import Any

import msgspec
import pytest
import redis.asyncio
from aiohttp import ClientSession

from mqservice import Message, Reject, Retry, Service, deploy
from mqservice.config import Config, QueueConfig
from mqservice.connections import Connections
from mqservice.histogram import BOUNDS_S
from mqservice.processes import Processes, Report, Telling
from mqservice.queue_counters import REASONS
from mqservice.runtime import Parts
from mqservice.tally import NAMES, OTHER
from tests.scraping import Scraped
from tests.waiting import until_async


async def scrape(service: Service, query: str = "", **headers: str) -> Scraped:
    async with ClientSession() as session, session.get(f"{service.url}/metrics{query}", headers=headers) as response:
        assert response.status == 200, await response.text()
        return Scraped(await response.text(), response.headers["Content-Type"])


def made(config: Config) -> Service:
    service = Service(config)

    @service.handler("work", attempts=2, retry=0.01)
    async def work(body: str, message: Message) -> str:
        if body == "reject":
            raise Reject("no")
        if body == "fail":
            raise ValueError(body)
        if body == "again" and message.attempt == 1:
            raise Retry(delay=0.01)
        if body == "slow":
            await asyncio.sleep(30)
        return body

    return service


@pytest.fixture
def service(config: Config) -> Service:
    return made(config)


async def ended(service: Service, query: str, count: int) -> Scraped:
    """Scrape until so many messages have ended."""
    found: list[Scraped] = []

    async def enough() -> bool:
        found[:] = [await scrape(service, query)]
        names = ("done", "died", "cancelled")
        return sum(found[0](f"mqservice_messages_{name}_total", queue="work") or 0 for name in names) == count

    await until_async(enough, 10)
    return found[0]


async def test_metrics_when_messages_were_handled_then_the_counters_agree_with_redis_and_the_histograms_with_them(
    service: Service, redis_client: redis.asyncio.Redis
) -> None:
    async with service:
        await service.send_many("work", ["x"] * 200)
        for body in ("reject", "fail", "again"):
            await service.send("work", body)
        slow = await service.send("work", "slow")

        async def running() -> bool:
            return bool(await redis_client.zcard("{mq:work}:active") == 1)

        await until_async(running, 10)
        path = f"{service.url}/v1/queues/work/messages/{slow.id}"
        async with ClientSession() as session, session.delete(path) as response:
            assert response.status == 200
        one = await ended(service, "", 204)
        info = {key.decode(): int(n) for key, n in (await redis_client.hgetall("{mq:work}:info")).items()}

        async def told() -> bool:
            return (await scrape(service, "?scope=all"))("mqservice_message_wait_seconds_count", queue="work") == 204

        await until_async(told, 5)
        whole = await scrape(service, "?scope=all")
    for seen in (one, whole):
        for field in ("sent", "done", "failed", "cancelled"):
            assert seen(f"mqservice_messages_{field}_total", queue="work") == info[field], field
        assert seen("mqservice_messages_died_total", queue="work") == info["died"] == 2
        assert seen("mqservice_messages_died_total", queue="work", reason="rejected") == info["died:rejected"] == 1
        assert seen("mqservice_messages_died_total", queue="work", reason="failed") == info["died:failed"] == 1
        assert seen("mqservice_messages_retried_total", queue="work") == 2
        assert seen("mqservice_message_wait_seconds_count", queue="work") == 204
        assert seen("mqservice_handler_run_seconds_count", queue="work") == 206  # two ran twice
        assert seen("mqservice_handler_run_seconds_bucket", queue="work", le="+Inf") == 206
        assert (seen("mqservice_handler_run_seconds_sum", queue="work") or 0) > 0
        assert seen("mqservice_messages", queue="work", state="dead") == 2
        assert seen("mqservice_messages", queue="work", state="ready") == 0
        assert (seen("mqservice_canary_age_seconds", queue="work") or 0) < 5
        assert seen("mqservice_lease_losses_total", queue="work") in (None, 0)
        assert seen("mqservice_redis_up") == 1
        assert (seen("process_resident_memory_bytes") or 0) > 1_000_000
        assert (seen("process_cpu_seconds_total") or 0) > 0
        assert seen("mqservice_event_streams") == 0
    assert (info["sent"], info["done"]) == (204, 201)


async def test_metrics_when_accept_asks_for_it_then_openmetrics_else_text(service: Service) -> None:
    async with service:
        plain = await scrape(service)
        assert plain.content_type == "text/plain; version=0.0.4; charset=utf-8"
        opened = await scrape(service, Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        assert opened.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert opened.text.endswith("# EOF\n")
        assert opened.families.keys() >= {"mqservice_build_info", "mqservice_redis_up"}


async def test_metrics_when_requests_were_made_then_they_count_by_template_and_code_only(service: Service) -> None:
    async with service, ClientSession() as session:
        for number in range(30):
            async with session.post(f"{service.url}/v1/queues/work/messages?id=m{number}", json="x") as response:
                assert response.status == 202
            async with session.get(f"{service.url}/nowhere/{number}") as response:
                assert response.status == 404
        async with session.post(f"{service.url}/v1/queues/work/messages?rubbish=1", json="x") as response:
            assert response.status == 400
        seen = await scrape(service)
    route = "/v1/queues/{queue}/messages"
    assert seen("mqservice_http_requests_total", route=route, method="POST", code="202") == 30
    assert seen("mqservice_http_requests_total", route=route, method="POST", code="400") == 1
    assert seen("mqservice_http_requests_total", route="none", code="404") == 30
    assert seen("mqservice_http_request_duration_seconds_count", route=route, method="POST") == 31
    assert seen.values("mqservice_http_requests_total", "route") == [route, "none"]


async def test_metrics_when_senders_make_up_names_then_beyond_some_they_are_other(service: Service) -> None:
    async with service:
        for number in range(NAMES + 30):
            await service.send(f"made-up-{number}", 1)

        async def told() -> bool:
            whole = await scrape(service, "?scope=all")
            return (whole("mqservice_http_requests_total") or 0) > 1  # a report with such names has gone through

        await until_async(told)
        seen, whole = await scrape(service), await scrape(service, "?scope=all")
    for scraped in (seen, whole):
        names = scraped.values("mqservice_messages", "queue")
        assert len(names) == NAMES + 1
        assert OTHER in names
        assert scraped("mqservice_messages_sent_total") == NAMES + 30
        assert scraped("mqservice_messages", state="ready") == NAMES + 30
        assert len(scraped.values("mqservice_messages_sent_total", "queue")) <= NAMES + 1


async def test_totals_when_processes_make_up_names_then_redis_tells_apart_only_some(connections: Connections) -> None:
    processes = Processes(connections)
    counts = {("retried", f"q{number}"): 1 for number in range(NAMES + 50)}
    await processes.leave("one", Telling(1, counts))
    totals = await processes.totals()
    assert len(totals.names) == NAMES
    assert totals.counts[f"retried@{OTHER}"] == 50
    assert sum(totals.counts.values()) == NAMES + 50


async def test_totals_when_a_telling_comes_twice_then_it_counts_once(
    connections: Connections, redis_client: redis.asyncio.Redis
) -> None:
    processes = Processes(connections)
    report = msgspec.convert(
        {"name": "one", "host": "h", "pid": 1, "started_at_ms": 1, "queues": [], "loop_lag_ms": 0, "redis_ms": 0,
         "held": 0, "runs": 0, "streams": 0, "rss_bytes": 1},
        type=Report,
    )  # fmt: skip
    for number in (1, 1, 2, 2):
        await processes.put(report, Telling(number, {("http GET / 200", ""): 3}))
    assert (await processes.totals()).counts == {"http GET / 200": 6}
    await processes.leave("one")
    assert not await redis_client.exists("{mq}:processes:told:one")
    assert await redis_client.ttl("{mq}:processes:totals") > 86_400


async def test_metrics_of_all_when_two_processes_work_then_each_answers_for_both_and_an_end_takes_nothing_away(
    service: Service, config: Config
) -> None:
    other = made(config)
    async with service:
        await other.start(Parts())
        await service.send_many("work", ["x"] * 500)
        one, two = await ended(service, "?scope=all", 500), await ended(other, "?scope=all", 500)
        for whole in (one, two):
            assert whole("mqservice_processes") == 2
            assert len(whole.values("mqservice_event_loop_lag_seconds", "process")) == 2

        async def runs(of: Service) -> float | None:
            return (await scrape(of, "?scope=all"))("mqservice_handler_run_seconds_count", queue="work")

        async def told() -> bool:
            return await runs(service) == await runs(other) == 500

        await until_async(told)
        mine = (await scrape(service))("mqservice_handler_run_seconds_count", queue="work") or 0
        its = (await scrape(other))("mqservice_handler_run_seconds_count", queue="work") or 0
        assert mine + its == 500
        await other.stop()
        assert await runs(service) == 500
        whole = await scrape(service, "?scope=all")
        assert whole("mqservice_processes") == 1
        assert whole("mqservice_messages_done_total", queue="work") == 500


async def test_metrics_when_redis_is_away_then_a_process_still_tells_of_itself(
    service: Service, redis_client: redis.asyncio.Redis
) -> None:
    async with service:
        await service.send("work", "x")
        await ended(service, "", 1)
        await redis_client.client_pause(4000, all=True)
        seen = await scrape(service)
        assert seen("mqservice_redis_up") == 0
        assert seen("mqservice_messages_done_total", queue="work") == 1
        assert seen("mqservice_messages") is None

        async def back() -> bool:
            found = await scrape(service)
            return (found("mqservice_redis_reconnects_total") or 0) >= 1 and found("mqservice_redis_up") == 1

        await until_async(back, 15)
        seen = await scrape(service)
        assert (seen("mqservice_redis_outages_total") or 0) >= 1
        assert 0.1 < (seen("mqservice_redis_outage_seconds_total") or 0) < 10


async def test_metrics_when_a_message_crashed_its_process_then_its_death_is_counted_by_reason(
    config: Config, redis_client: redis.asyncio.Redis, connections: Connections
) -> None:
    service = made(msgspec.structs.replace(config, queue=QueueConfig(lease_s=2.0, bell_s=0.5, crashes=2)))
    async with service:
        broker = service._running().backend.broker("lost")
        await service.send("lost", 1)
        for consumer in ("c1", "c2"):
            await broker.claim("8" * 15 + consumer[1], consumer, 1)
            await redis_client.zadd(
                "{mq:lost}:active", dict.fromkeys(await redis_client.zrange("{mq:lost}:active", 0, -1), 1)
            )
        await broker.claim("8" * 15 + "3", "c3", 1)
        whole = await scrape(service, "?scope=all")
    assert whole("mqservice_messages_died_total", queue="lost", reason="crashed") == 1


async def test_metrics_when_a_queue_is_at_most_once_then_all_processes_tell_what_became_of_it(config: Config) -> None:
    service = Service(config)

    @service.handler("raw", delivery="at-most-once")
    async def raw(body: Any) -> None:
        if body == "bad":
            raise ValueError

    async with service:
        await service.send_many("raw", [1, 2, "bad"])

        async def told() -> bool:
            seen = await scrape(service, "?scope=all")
            return seen("mqservice_messages_done_total", queue="raw") == 2

        await until_async(told)
        whole = await scrape(service, "?scope=all")
        assert whole("mqservice_messages_died_total", queue="raw", reason="failed") == 1
        assert whole("mqservice_messages_sent_total", queue="raw") == 3
        assert (await scrape(service))("mqservice_messages_sent_total", queue="raw") == 3


async def test_metrics_when_scraped_then_buckets_grow_and_their_bounds_are_ours(service: Service) -> None:
    async with service:
        await service.send("work", "x")
        seen = await ended(service, "", 1)
    buckets = [
        (sample.labels["le"], sample.value)
        for sample in seen.samples
        if sample.name == "mqservice_handler_run_seconds_bucket"
    ]
    assert [float(le) for le, _ in buckets] == [*BOUNDS_S, float("inf")]
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)


async def test_metrics_when_a_queue_is_deleted_then_what_was_told_of_it_goes_too(
    service: Service, redis_client: redis.asyncio.Redis, connections: Connections
) -> None:
    processes = Processes(connections)
    await processes.leave("one", Telling(1, {("run 3", "gone"): 2, ("run 3", "agone"): 1, ("http GET / 200", ""): 1}))
    async with service, ClientSession() as session:
        await service.send("gone", 1)
        async with session.delete(f"{service.url}/v1/queues/gone") as response:
            assert response.status == 200
        whole = await scrape(service, "?scope=all")
    totals = await processes.totals()
    assert {field for field in totals.counts if "gone" in field} == {"run 3@agone"}
    assert totals.counts["http GET / 200"] >= 1
    assert "gone" not in totals.names
    assert "gone" not in whole.values("mqservice_messages_sent_total", "queue")


async def test_metrics_when_a_client_leaves_before_its_answer_then_499_is_counted(service: Service) -> None:
    async with service:
        sent = await service.send("nobody", 1)
        path = f"{service.url}/v1/queues/nobody/messages/{sent.id}?wait=20"
        async with ClientSession() as session:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2), session.get(path):
                    pass

        async def counted() -> bool:
            return (await scrape(service))("mqservice_http_requests_total", code="499", method="GET") == 1

        await until_async(counted)


async def test_metrics_when_streams_are_open_then_they_count_by_their_status_and_take_no_time(service: Service) -> None:
    async with service, ClientSession() as session:
        async with session.get(f"{service.url}/v1/events?limit=1") as response:
            assert response.status == 200
            await response.read()
        seen = await scrape(service)
    assert seen("mqservice_http_requests_total", route="/v1/events", code="200") == 1
    assert seen("mqservice_http_request_duration_seconds_count", route="/v1/events") is None


async def test_metrics_when_nothing_has_happened_to_a_queue_then_its_counters_are_there_and_0(service: Service) -> None:
    async with service:
        for seen in (await scrape(service), await scrape(service, "?scope=all")):
            for name in ("sent", "done", "failed", "retried", "cancelled"):
                assert seen(f"mqservice_messages_{name}_total", queue="work") == 0
            assert seen("mqservice_lease_losses_total", queue="work") == 0
            assert seen.values("mqservice_messages_died_total", "reason") == sorted(REASONS)
            assert seen("mqservice_messages_died_total", queue="work") == 0


async def test_metrics_when_scraped_then_each_query_of_the_dashboard_finds_its_metrics_and_labels(
    service: Service,
) -> None:
    async with service:
        for body in ("x", "reject", "fail", "again"):
            await service.send("work", body)
        await ended(service, "", 4)

        async def told() -> bool:
            whole = await scrape(service, "?scope=all")
            return whole("mqservice_message_wait_seconds_count", queue="work") == 4

        await until_async(told)
        whole = await scrape(service, "?scope=all")
    queries = dashboard_queries()
    assert len(queries) > 25
    for query in queries:
        used = re.findall(r"\b((?:mqservice|process)_\w+)\{([^}]*)\}", query)
        assert used, query
        wanted = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")}
        for name, matchers in used:
            found = [sample.labels.keys() for sample in whole.samples if sample.name == name]
            assert found, (name, query)
            labels = wanted | set(re.findall(r"(\w+)=", matchers))
            assert labels - {"job"} <= found[0], (name, query)  # the job is Prometheus' own


def dashboard_queries() -> list[str]:
    panels = json.loads(deploy.read(deploy.TEXTS["grafana"]))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]
