"""Schedules in Redis, and the schedulers of several processes that fire them: none twice, none missing."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal, cast

import pytest
from redis.asyncio import Redis

from mqservice import keys
from mqservice.broker import MARK, Broker, claim_token
from mqservice.config import Config
from mqservice.connections import Connections
from mqservice.errors import InvalidSchedule, OutOfMemory, Unavailable
from mqservice.message import Done, Outgoing
from mqservice.schedule_store import Schedules
from mqservice.scheduler import Scheduler
from mqservice.schedules import Schedule
from tests.waiting import until, until_async

K = "mq:jobs"
MONTH_S = 30 * 86_400
MONTH = MONTH_S * 1000
"""A period with no due time during a test; the last one is 30 days old at most."""


def monthly(**others: Any) -> Schedule:
    return Schedule(**{"name": "s", "queue": "jobs", "every": MONTH_S, "body": {"n": 1}, **others})


SECONDLY = Schedule(name="tick", queue="jobs", every=1.0)


class Process:
    """What one process has: connections, store, broker, scheduler."""

    def __init__(self, config: Config, store: type[Schedules] = Schedules, **options: Any) -> None:
        self.connections = Connections(config.redis.url)
        self.store = store(self.connections)
        self.broker = Broker(self.connections, config.queue_options("jobs", **options))
        self.answers: list[tuple[str, str]] = []
        self._running: asyncio.Task[None] | None = None

    def scheduler(self, send: Callable[[str, bytes, str], Awaitable[str]] | None = None, **options: Any) -> Scheduler:
        return Scheduler(self.store, send or self.send, lambda _: self.broker.queue, **options)

    async def send(self, queue: str, body: bytes, message_id: str) -> str:
        answer = await self.broker.send(Outgoing(message_id, body))
        self.answers.append((message_id, answer))
        return answer

    async def aclose(self) -> None:
        await self.broker.aclose()
        await self.connections.aclose()


@pytest.fixture
async def start(config: Config) -> AsyncIterator[Callable[..., Process]]:
    async with AsyncExitStack() as stack:

        def start(store: type[Schedules] = Schedules, **options: Any) -> Process:
            process = Process(config, store, **options)
            stack.push_async_callback(process.aclose)
            return process

        yield start


@pytest.fixture
def process(start: Callable[..., Process]) -> Process:
    return start()


@pytest.fixture
def store(process: Process) -> Schedules:
    return process.store


@asynccontextmanager
async def running(*schedulers: Scheduler) -> AsyncIterator[list["asyncio.Task[None]"]]:
    tasks = [asyncio.create_task(each.run(), name="scheduler") for each in schedulers]
    try:
        yield tasks
    finally:
        for each in schedulers:
            each.stop()
        await asyncio.wait(tasks, timeout=5)
        assert all(task.done() for task in tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def sent(redis: Redis) -> list[str]:
    """The ids on the ready list, oldest first."""
    entries = cast("list[bytes]", await redis.lrange(K, 0, -1))
    return [entry.removeprefix(MARK).decode() for entry in entries]


async def dues(redis: Redis, name: str = "s") -> list[int]:
    return [int(id.removeprefix(f"schedule:{name}:")) for id in await sent(redis)]


async def stored(redis: Redis, name: str = "s") -> dict[str, str]:
    fields = cast("dict[bytes, bytes]", await redis.hgetall(keys.schedule(name)))
    return {key.decode(): value.decode() for key, value in fields.items()}


async def redis_ms(redis: Redis) -> int:
    seconds, micros = await redis.time()
    return int(seconds * 1000 + micros // 1000)


async def missed(redis: Redis, count: int, name: str = "s") -> list[int]:
    """Make it so that the last `count` due times of a monthly schedule were fired by nobody; return them."""
    last = await redis_ms(redis) // MONTH * MONTH
    found = [last - n * MONTH for n in reversed(range(count))]
    await redis.hset(keys.schedule(name), mapping={"created": found[0] - 1, "last": found[0] - 1})
    return found


# The store


async def test_put_when_new_then_created_and_seen_with_its_next_times(store: Schedules, redis_client: Redis) -> None:
    assert await store.put(Schedule(name="a", queue="jobs", cron="0 7 * * *", tz="Europe/Berlin", body=[1]))
    view = await store.get("a")
    assert view is not None
    assert (view.cron, view.body, view.source, view.last_at, view.skipped) == ("0 7 * * *", [1], "api", None, 0)
    assert len(view.next) == 5
    assert view.next == sorted(view.next)
    assert [each.name for each in await store.list()] == ["a"]
    assert await store.get("b") is None


async def test_put_when_it_exists_then_replaced_and_goes_on_where_it_was(store: Schedules, redis_client: Redis) -> None:
    await store.put(monthly())
    await missed(redis_client, 1)
    before = await stored(redis_client)
    assert not await store.put(monthly(body=2, overlap="skip"))
    after = await stored(redis_client)
    assert (after["created"], after["last"]) == (before["created"], before["last"])
    assert int(after["rev"]) > int(before["rev"])


@pytest.mark.parametrize("other", [{"every": MONTH_S / 2}, {"every": None, "cron": "* * * * *"}])
async def test_put_when_the_timing_changes_then_it_begins_anew_from_now(
    store: Schedules, redis_client: Redis, other: dict[str, Any]
) -> None:
    await store.put(monthly())
    await missed(redis_client, 3)
    now = await redis_ms(redis_client)
    assert not await store.put(monthly(**other))
    assert int((await stored(redis_client))["created"]) >= now


async def test_put_when_paused_and_resumed_then_what_was_due_meanwhile_is_not_made_up_for(
    process: Process, redis_client: Redis
) -> None:
    await process.store.put(monthly(misfire="catch_up", paused=True))
    assert (await process.store.list())[0].next == []
    await missed(redis_client, 3)
    await process.store.put(monthly(misfire="catch_up"))
    await process.store.put(SECONDLY)
    async with running(process.scheduler()):
        await until(lambda: process.answers)
    assert all(id.startswith("schedule:tick:") for id, _ in process.answers)


async def test_put_when_nothing_changes_then_nobody_has_to_look(store: Schedules) -> None:
    await store.put(monthly())
    before = (await store.glance()).changes
    assert not await store.put(monthly())
    assert (await store.glance()).changes == before


async def test_put_when_invalid_then_refused_and_nothing_kept(store: Schedules, redis_client: Redis) -> None:
    with pytest.raises(InvalidSchedule):
        await store.put(monthly(every=0.1))
    assert await redis_client.keys("*") == []


async def test_delete_when_it_exists_then_gone_with_all_its_keys(store: Schedules, redis_client: Redis) -> None:
    await store.put(monthly())
    assert await store.delete("s")
    assert not await store.delete("s")
    assert (await store.get("s"), await store.list()) == (None, [])
    assert await redis_client.keys("*") == [keys.schedule_changes().encode()]


async def test_sync_when_the_configuration_drops_one_then_only_what_it_had_put_vanishes(store: Schedules) -> None:
    await store.put(monthly(name="mine"))
    await store.sync([monthly(name="other")], "other:app")
    await store.sync([monthly(name="a"), monthly(name="b")], "my:app")
    await store.sync([monthly(name="b")], "my:app")
    assert [(each.name, each.source) for each in await store.list()] == [
        ("b", "config"),
        ("mine", "api"),
        ("other", "config"),
    ]


async def test_sync_when_it_was_put_over_the_api_then_left_alone_until_deleted(store: Schedules) -> None:
    await store.sync([monthly()], "my:app")
    await store.put(monthly(paused=True))
    await store.sync([monthly()], "my:app")
    await store.sync([], "my:app")
    view = await store.get("s")
    assert view is not None
    assert (view.source, view.paused) == ("api", True)
    await store.delete("s")
    await store.sync([monthly()], "my:app")
    view = await store.get("s")
    assert view is not None
    assert (view.source, view.paused) == ("config", False)


async def test_mark_when_sent_twice_or_backwards_then_it_only_moves_forward(
    store: Schedules, redis_client: Redis
) -> None:
    await store.put(monthly())
    rev = int((await stored(redis_client))["rev"])
    assert await store.mark("s", rev, 2000, "fired")
    assert not await store.mark("s", rev, 2000, "fired")
    assert not await store.mark("s", rev, 1000, "fired")
    assert not await store.mark("s", rev + 1, 3000, "fired")
    assert await store.mark("s", rev, 3000, "skipped")
    assert not await store.mark("s", rev, 3000, "skipped")
    kept = await stored(redis_client)
    assert (kept["fired"], kept["last"], kept["skipped"]) == ("2000", "3000", "1")


async def test_load_when_one_is_unreadable_then_the_others_are_there(store: Schedules, redis_client: Redis) -> None:
    await store.put(monthly(name="a"))
    await store.put(monthly(name="b"))
    await redis_client.hset(keys.schedule("a"), "spec", '{"name":"a","queue":"jobs","every":5,"of":"the future"}')
    assert [each.name for each in await store.list()] == ["b"]
    assert await store.get("a") is None


# Due times


async def test_schedule_when_every_second_in_three_processes_then_none_twice_and_none_missing(
    start: Callable[..., Process], redis_client: Redis
) -> None:
    processes = [start() for _ in range(3)]
    await processes[0].store.put(SECONDLY)
    created = int((await stored(redis_client, "tick"))["created"])
    async with running(*(each.scheduler() for each in processes)):
        await until_async(lambda: _length_is(redis_client, 4), 6)
        late_ms = await redis_ms(redis_client) - (await dues(redis_client, "tick"))[3]
    found = await dues(redis_client, "tick")
    assert found == [(created // 1000 + 1 + n) * 1000 for n in range(len(found))]
    assert late_ms < 250
    view = await processes[0].store.get("tick")
    assert view is not None
    assert (view.last_at is not None, view.skipped) == (True, 0)


async def _length_is(redis: Redis, length: int) -> bool:
    return bool(await redis.llen(K) >= length)


async def test_schedule_when_the_clock_of_one_process_is_an_hour_off_then_due_by_the_time_of_redis(
    start: Callable[..., Process], redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_time = time.time
    monkeypatch.setattr("time.time", lambda: true_time() + 3600)
    right, wrong = start(), start()
    await right.store.put(SECONDLY)
    began = await redis_ms(redis_client)
    hour_off = wrong.scheduler(monotonic=lambda: time.monotonic() - 3600)
    async with running(right.scheduler(), hour_off):
        await until_async(lambda: _length_is(redis_client, 2))
    found = await dues(redis_client, "tick")
    assert found == list(range(found[0], found[-1] + 1, 1000))
    assert began < found[0] <= found[-1] <= await redis_ms(redis_client)


async def test_schedule_when_put_while_running_then_its_first_due_time_is_fired_and_none_once_deleted(
    process: Process, redis_client: Redis
) -> None:
    scheduler = process.scheduler()
    async with running(scheduler):
        await until(lambda: scheduler._seen is not None)
        await process.store.put(SECONDLY)
        first = int((await stored(redis_client, "tick"))["created"]) // 1000 * 1000 + 1000
        await until(lambda: process.answers, 2.5)
        await process.store.delete("tick")
        ticks = len(process.answers)
        await process.store.put(Schedule(name="tock", queue="jobs", every=1.0))
        await until(lambda: len(process.answers) >= ticks + 2, 5)
    assert process.answers[0] == (f"schedule:tick:{first}", "ready")
    assert all(id.startswith("schedule:tock:") for id, _ in process.answers[ticks:])


@pytest.mark.parametrize(("misfire", "expected"), [("skip", 0), ("coalesce", 1), ("catch_up", 3)])
async def test_schedule_when_everybody_was_down_then_as_its_policy_says(
    start: Callable[..., Process], redis_client: Redis, misfire: str, expected: int
) -> None:
    one, two = start(), start()
    await one.store.put(monthly(misfire=misfire))
    await one.store.put(SECONDLY)
    late = await missed(redis_client, 3)
    async with running(one.scheduler(), two.scheduler()):
        await until_async(lambda: _has_ticked(redis_client))
    found = [id for id in await sent(redis_client) if id.startswith("schedule:s:")]
    assert found == [f"schedule:s:{due}" for due in late[3 - expected :]]


async def _has_ticked(redis: Redis) -> bool:
    return any(id.startswith("schedule:tick:") for id in await sent(redis))


async def test_schedule_when_it_catches_up_with_many_then_all_in_order_in_two_processes(
    start: Callable[..., Process], redis_client: Redis
) -> None:
    one, two = start(), start()
    await one.store.put(monthly(misfire="catch_up"))
    late = await missed(redis_client, 130)
    async with running(one.scheduler(), two.scheduler()):
        await until_async(lambda: _length_is(redis_client, 130))
    assert await dues(redis_client) == late


# Interleavings


class DiesBeforeMark(Schedules):
    """A process that is killed after sending."""

    async def mark(self, name: str, rev: int, due_ms: int, kind: Literal["fired", "skipped"]) -> bool:
        raise asyncio.CancelledError


async def test_schedule_when_a_process_dies_between_send_and_mark_then_another_marks_and_it_ran_once(
    start: Callable[..., Process], redis_client: Redis
) -> None:
    dying, heir = start(DiesBeforeMark), start()
    await heir.store.put(monthly(misfire="catch_up"))
    (due,) = await missed(redis_client, 1)
    async with running(dying.scheduler()) as (task,):
        await until(task.done)
    assert dying.answers == [(f"schedule:s:{due}", "ready")]
    async with running(heir.scheduler()):
        await until_async(lambda: _is_marked(redis_client, due))
    assert heir.answers == [(f"schedule:s:{due}", "=ready")]
    assert await dues(redis_client) == [due]


async def _is_marked(redis: Redis, due: int) -> bool:
    return (await stored(redis)).get("last") == str(due)


async def test_schedule_when_two_processes_send_at_the_same_time_then_one_message(
    start: Callable[..., Process], redis_client: Redis
) -> None:
    slow, quick = start(), start()
    await quick.store.put(monthly(misfire="catch_up"))
    (due,) = await missed(redis_client, 1)
    held_up, go_on = asyncio.Event(), asyncio.Event()

    async def send_slowly(queue: str, body: bytes, message_id: str) -> str:
        held_up.set()
        await go_on.wait()
        return await slow.send(queue, body, message_id)

    async with running(slow.scheduler(send_slowly)):
        await held_up.wait()
        async with running(quick.scheduler()):
            await until_async(lambda: _is_marked(redis_client, due))
        go_on.set()
        await until(lambda: slow.answers)
    assert (quick.answers[0][1], slow.answers[0][1]) == ("ready", "=ready")
    assert await dues(redis_client) == [due]


async def test_schedule_when_a_process_is_late_after_the_record_has_expired_then_the_mark_stops_it(
    start: Callable[..., Process], redis_client: Redis
) -> None:
    first, late = start(), start()
    await first.store.put(monthly(misfire="catch_up"))
    (due,) = await missed(redis_client, 1)
    stale = await late.store.load()
    async with running(first.scheduler()):
        await until_async(lambda: _is_marked(redis_client, due))
    await redis_client.delete(keys.record(K, f"schedule:s:{due}"), K)
    assert stale["s"].floor_ms < due
    async with running(late.scheduler()):
        await late.store.put(SECONDLY)
        await until(lambda: late.answers)
    assert all(id.startswith("schedule:tick:") for id, _ in late.answers)


async def test_schedule_when_changed_between_take_and_mark_then_the_new_one_sends_it_again_as_the_same_message(
    process: Process, redis_client: Redis
) -> None:
    await process.store.put(monthly(misfire="catch_up"))
    (due,) = await missed(redis_client, 1)

    async def send_while_somebody_puts(queue: str, body: bytes, message_id: str) -> str:
        if not process.answers:
            await process.store.put(monthly(misfire="catch_up", body=2))
        return await process.send(queue, body, message_id)

    async with running(process.scheduler(send_while_somebody_puts)):
        await until_async(lambda: _is_marked(redis_client, due))
    assert [answer for _, answer in process.answers] == ["ready", "=ready"]


# Queues


async def test_schedule_when_the_message_before_is_unfinished_then_skipped_and_counted(
    process: Process, redis_client: Redis
) -> None:
    await process.store.put(monthly(misfire="catch_up", overlap="skip"))
    late = await missed(redis_client, 3)
    async with running(process.scheduler()):
        await until_async(lambda: _is_marked(redis_client, late[-1]))
    assert await dues(redis_client) == late[:1]
    view = await process.store.get("s")
    assert view is not None
    assert view.skipped == 2
    (message,) = (await process.broker.claim(claim_token(), "c", 1)).messages
    await process.broker.settle(message.receipt, Done(b"1"))
    await redis_client.hset(keys.schedule("s"), "last", late[1])
    async with running(process.scheduler()):
        await until_async(lambda: _is_marked(redis_client, late[-1]))
    assert await dues(redis_client) == late[2:]


async def test_schedule_when_the_queue_is_at_most_once_then_marked_before_it_is_sent(
    start: Callable[..., Process], redis_client: Redis
) -> None:
    process = start(delivery="at-most-once")
    await process.store.put(monthly(misfire="catch_up"))
    (due,) = await missed(redis_client, 1)
    marked: list[bool] = []

    async def send(queue: str, body: bytes, message_id: str) -> str:
        marked.append(await _is_marked(redis_client, due))
        raise Unavailable("nobody will ever know whether it was sent")

    async with running(process.scheduler(send)):
        await until(lambda: marked)
        await process.store.put(SECONDLY)
        await until(lambda: len(marked) == 2)
    assert marked == [True, True]


@pytest.mark.parametrize("refusal", ["full", OutOfMemory("full")])
async def test_schedule_when_its_queue_refuses_then_sent_once_it_takes_again_and_others_go_on(
    process: Process, redis_client: Redis, refusal: str | OutOfMemory
) -> None:
    await process.store.put(monthly(misfire="catch_up"))
    await process.store.put(Schedule(name="tick", queue="other", every=1.0))
    (due,) = await missed(redis_client, 1)
    ticks: list[str] = []
    refused: list[str] = []

    async def send(queue: str, body: bytes, message_id: str) -> str:
        if queue == "other":
            ticks.append(message_id)
            return "ready"
        if not ticks:
            refused.append(message_id)
            if isinstance(refusal, OutOfMemory):
                raise refusal
            return refusal
        return await process.send(queue, body, message_id)

    async with running(process.scheduler(send)):
        await until_async(lambda: _is_marked(redis_client, due))
    assert refused
    assert await dues(redis_client) == [due]


# Outages and errors


async def test_run_when_redis_is_away_for_a_while_then_it_goes_on_by_itself(
    process: Process, redis_client: Redis
) -> None:
    await process.store.put(monthly(misfire="catch_up"))
    (due,) = await missed(redis_client, 1)
    failures: list[str] = []

    async def send(queue: str, body: bytes, message_id: str) -> str:
        if len(failures) < 3:
            failures.append(message_id)
            raise Unavailable("gone")
        return await process.send(queue, body, message_id)

    async with running(process.scheduler(send)):
        await until_async(lambda: _is_marked(redis_client, due))
    assert await dues(redis_client) == [due]


async def test_run_when_our_own_code_fails_then_it_ends_with_that_error(process: Process, redis_client: Redis) -> None:
    await process.store.put(monthly(misfire="catch_up"))
    await missed(redis_client, 1)

    async def send(queue: str, body: bytes, message_id: str) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(process.scheduler(send).run(), 5)


async def test_run_when_redis_has_lost_everything_then_what_is_configured_is_put_again(
    process: Process, redis_client: Redis
) -> None:
    async with running(process.scheduler(configured=[SECONDLY], owner="my:app")):
        await until(lambda: process.answers)
        await redis_client.flushall()
        await until_async(lambda: _has_ticked(redis_client), 4)
    view = await process.store.get("tick")
    assert view is not None
    assert view.source == "config"


async def test_stop_when_called_before_start_and_twice_then_run_returns_at_once(process: Process) -> None:
    scheduler = process.scheduler()
    scheduler.stop()
    scheduler.stop()
    await asyncio.wait_for(scheduler.run(), 1)
    assert process.answers == []
