"""The consumer on a real server: slots, leases, drain, outages."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from mqservice import scripts
from mqservice.bell import Bell
from mqservice.broker import Broker, claim_token
from mqservice.config import Config
from mqservice.connections import Connections
from mqservice.consumer import Consumer, Execute
from mqservice.executor import Execution
from mqservice.handlers import Registry
from mqservice.leases import Renewal
from mqservice.message import Attempt, Claimed, Dead, Done, Outcome, Outgoing, Receipt
from mqservice.scripts import Script
from tests.waiting import until, until_async

K = "mq:jobs"


@asynccontextmanager
async def consuming(broker: Broker, execute: Execute, name: str = "c1") -> AsyncIterator[Consumer]:
    """Run a consumer for the length of the block, then drain it."""
    consumer = Consumer(broker, execute, name, failed)
    running = asyncio.create_task(consumer.run(), name="consumer under test")
    renewal = Renewal([consumer], asyncio.get_running_loop(), broker._connections.again, lambda: 0.0)
    renewing = asyncio.create_task(renewal.run(), name="renewal under test")
    try:
        yield consumer
    finally:
        consumer.stop()
        await asyncio.wait_for(running, 5)
        renewing.cancel()
        await asyncio.wait([renewing])


def failed(claimed: Claimed, error: BaseException, took_s: float) -> Outcome:
    return Dead("failed", Attempt(type=type(error).__name__, text=str(error), took_ms=int(took_s * 1000)))


async def taken_by_somebody_else(redis: Redis, message_id: str) -> None:
    await redis.hset(f"{{{K}}}:leases", message_id, f"{claim_token()}- 9 1 somebody/jobs")


@pytest.fixture
def make_broker(connections: Connections, config: Config) -> Callable[..., Broker]:
    return lambda **options: Broker(connections, config.queue_options("jobs", **options))


def collecting(seen: list[str]) -> Execute:
    async def execute(claimed: Claimed) -> Outcome:
        seen.append(claimed.receipt.id)
        return Done(b"null")

    return execute


async def test_run_when_messages_come_then_each_is_handled_once_and_done(
    make_broker: Callable[..., Broker], redis_client: Redis
) -> None:
    broker, seen = make_broker(), []
    async with consuming(broker, collecting(seen)):
        await asyncio.gather(*(broker.send(Outgoing(f"m{n}", b"x")) for n in range(1000)))
        await until(lambda: len(seen) == 1000)
    assert sorted(seen) == sorted(f"m{n}" for n in range(1000))
    assert await redis_client.hget(f"{{{K}}}:info", "done") == b"1000"
    assert await redis_client.zcard(f"{{{K}}}:active") == 0


async def test_run_when_slots_are_full_then_takes_no_more(
    make_broker: Callable[..., Broker], redis_client: Redis
) -> None:
    broker, gate, started = make_broker(concurrency=3), asyncio.Event(), []

    async def execute(claimed: Claimed) -> Outcome:
        started.append(claimed.receipt.id)
        await gate.wait()
        return Done(b"null")

    await broker.send_many([Outgoing(f"m{n}", b"x") for n in range(10)])
    async with consuming(broker, execute) as consumer:
        await until(lambda: len(started) == 3)
        assert (consumer.held, await redis_client.llen(K)) == (3, 7)
        gate.set()
        await until(lambda: len(started) == 10)


async def test_run_when_a_foreign_client_pushes_then_handled_within_the_bell_timeout(
    make_broker: Callable[..., Broker], redis_client: Redis
) -> None:
    seen: list[str] = []
    async with consuming(make_broker(), collecting(seen)):
        await redis_client.lpush(K, "7")
        await until(lambda: seen, 1.5)


async def test_run_when_scheduled_then_started_within_50_ms_of_its_time(make_broker: Callable[..., Broker]) -> None:
    broker, late_ms = make_broker(), []

    async def execute(claimed: Claimed) -> Outcome:
        seconds, micros = await broker._connections.commands.time()
        late_ms.append(seconds * 1000 + micros / 1000 - int(claimed.body))
        return Done(b"null")

    async with consuming(broker, execute):
        for n in range(10):
            seconds, micros = await broker._connections.commands.time()
            due = seconds * 1000 + micros // 1000 + 230
            await broker.send(Outgoing(f"m{n}", b"%d" % due, at_ms=due))
            await until(lambda n=n: len(late_ms) == n + 1)
    late_ms.sort()
    assert late_ms[0] >= 0
    assert late_ms[5] < 50, late_ms  # the median: one slow turn of a busy machine is not our scheduling


async def test_run_when_handler_outlasts_its_lease_then_renewed_and_run_once(
    make_broker: Callable[..., Broker], redis_client: Redis
) -> None:
    broker, runs, gate = make_broker(lease_s=1.0), [], asyncio.Event()

    async def execute(claimed: Claimed) -> Outcome:
        runs.append(claimed.receipt.id)
        await gate.wait()
        return Done(b"null")

    await broker.send(Outgoing("a", b"x"))
    async with consuming(broker, execute), consuming(broker, execute, "c2"):
        await until(lambda: runs)
        first = await redis_client.zscore(f"{{{K}}}:active", "a") or 0

        async def renewed_three_times() -> bool:
            return (await redis_client.zscore(f"{{{K}}}:active", "a") or 0) >= first + 1000

        await until_async(renewed_three_times)
        gate.set()
    assert runs == ["a"]


async def test_run_when_the_lease_is_lost_then_the_handler_is_cancelled_and_settles_nothing(
    make_broker: Callable[..., Broker], redis_client: Redis
) -> None:
    broker, cancelled = make_broker(lease_s=1.0), []

    async def execute(claimed: Claimed) -> Outcome:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(claimed.receipt.id)
            raise
        raise AssertionError

    await broker.send(Outgoing("a", b"x"))
    async with consuming(broker, execute) as consumer:
        await until(lambda: consumer.held)
        await taken_by_somebody_else(redis_client, "a")
        await until(lambda: cancelled == ["a"] and not consumer.held)


async def test_stop_when_a_handler_runs_then_it_finishes_and_nothing_new_is_taken(
    make_broker: Callable[..., Broker], redis_client: Redis
) -> None:
    broker, gate, seen = make_broker(concurrency=1), asyncio.Event(), []

    async def execute(claimed: Claimed) -> Outcome:
        seen.append(claimed.receipt.id)
        await gate.wait()
        return Done(b"null")

    await broker.send_many([Outgoing("a", b"x"), Outgoing("b", b"x")])
    async with consuming(broker, execute) as consumer:
        await until(lambda: seen)
        consumer.stop()
        consumer.stop()
        gate.set()
    assert seen == ["a"]
    assert await redis_client.llen(K) == 1
    assert await redis_client.hget(f"{{{K}}}:m:a", "state") == b"done"


async def test_abandon_when_handlers_run_then_released_in_order_with_no_attempt_used(
    make_broker: Callable[..., Broker], redis_client: Redis
) -> None:
    broker, started = make_broker(concurrency=2), []

    async def execute(claimed: Claimed) -> Outcome:
        started.append(claimed.receipt.id)
        await asyncio.Event().wait()
        raise AssertionError

    await broker.send_many([Outgoing(id, b"x") for id in "abc"])
    async with consuming(broker, execute) as consumer:
        await until(lambda: len(started) == 2)
        consumer.stop()
        await consumer.abandon()
    entries = [entry.removeprefix(b"\0mq:") for entry in await redis_client.lrange(K, 0, -1)]
    assert entries == [b"a", b"b", b"c"]
    assert await redis_client.hmget(f"{{{K}}}:m:a", "state", "attempts", "crashes") == [b"ready", None, None]


async def test_abandon_when_redis_refuses_the_release_then_the_consumer_ends_all_the_same(
    make_broker: Callable[..., Broker], redis_client: Redis
) -> None:
    broker, started = make_broker(concurrency=1), []

    async def execute(claimed: Claimed) -> Outcome:
        started.append(claimed.receipt.id)
        await asyncio.Event().wait()
        raise AssertionError

    await broker.send(Outgoing("a", b"x"))
    with capture_logs() as logs:
        async with consuming(broker, execute) as consumer:
            await until(lambda: started)
            await redis_client.set(f"{{{K}}}:active", "a stranger's")
            consumer.stop()
            await consumer.abandon()
    assert [line["count"] for line in logs if line["event"] == "not released"] == [1]


async def test_abandon_when_a_handler_ignores_cancellation_then_left_behind_and_released(
    make_broker: Callable[..., Broker], redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqservice.consumer._STUBBORN_S", 0.05)
    broker, gate, started = make_broker(), asyncio.Event(), []

    async def execute(claimed: Claimed) -> Outcome:
        started.append(claimed.receipt.id)
        while not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()
        return Done(b"null")

    await broker.send(Outgoing("a", b"x"))
    async with consuming(broker, execute) as consumer:
        await until(lambda: started)
        consumer.stop()
        await consumer.abandon()
        assert consumer.held == 0
    assert await redis_client.hget(f"{{{K}}}:m:a", "state") == b"ready"
    gate.set()


async def test_run_when_a_handler_ignores_its_timeout_then_settled_for_it_and_its_slot_is_free(
    make_broker: Callable[..., Broker], redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqservice.consumer._STUBBORN_S", 0.05)
    broker, gate, seen = make_broker(concurrency=1, timeout_s=0.05, lease_s=1.0), asyncio.Event(), []

    async def handle(body: int) -> None:
        seen.append(body)
        while body == 1 and not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()

    registry = Registry()
    registry.handler("jobs", {})(handle)
    execution = Execution(registry.handlers["jobs"], broker.queue, "here")
    await broker.send_many([Outgoing("stubborn", b"1"), Outgoing("next", b"2")])
    consumer = Consumer(broker, execution.run, "c1", execution.failed)
    running = asyncio.create_task(consumer.run(), name="consumer under test")
    await until(lambda: seen == [1, 2])
    assert await redis_client.hget(f"{{{K}}}:m:stubborn", "state") == b"scheduled"
    assert b"ignored its cancellation" in (await redis_client.hget(f"{{{K}}}:m:stubborn", "error") or b"")
    gate.set()
    consumer.stop()
    await asyncio.wait_for(running, 5)


async def test_stop_when_a_handler_ignores_its_timeout_then_the_drain_ends_without_it(
    make_broker: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqservice.consumer._STUBBORN_S", 0.05)
    broker, gate, started = make_broker(timeout_s=0.05, lease_s=1.0), asyncio.Event(), []

    async def execute(claimed: Claimed) -> Outcome:
        started.append(claimed.receipt.id)
        while not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()
        return Done(b"null")

    await broker.send(Outgoing("stubborn", b"1"))
    consumer = Consumer(broker, execute, "c1", failed)
    running = asyncio.create_task(consumer.run(), name="consumer under test")
    await until(lambda: started)
    consumer.stop()
    try:
        await until(running.done, 3)
    finally:
        gate.set()
        await asyncio.wait({running})


async def test_run_when_a_handler_ignores_that_its_lease_is_lost_then_its_slot_is_free(
    make_broker: Callable[..., Broker], redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqservice.consumer._STUBBORN_S", 0.05)
    broker, gate, seen = make_broker(concurrency=1, lease_s=1.0), asyncio.Event(), []

    async def execute(claimed: Claimed) -> Outcome:
        seen.append(claimed.receipt.id)
        while claimed.receipt.id == "lost" and not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()
        return Done(b"null")

    await broker.send_many([Outgoing("lost", b"x"), Outgoing("next", b"x")])
    async with consuming(broker, execute):
        try:
            await until(lambda: seen == ["lost"])
            await taken_by_somebody_else(redis_client, "lost")
            await until(lambda: seen == ["lost", "next"], 3)
        finally:
            gate.set()


async def test_run_when_every_connection_is_killed_then_goes_on_and_loses_nothing(
    make_broker: Callable[..., Broker], redis_client: Redis
) -> None:
    broker, seen = make_broker(), []
    async with consuming(broker, collecting(seen)):
        for n in range(20):
            await broker.send(Outgoing(f"m{n}", b"x"))
            await redis_client.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: len(set(seen)) == 20)
    assert await redis_client.hget(f"{{{K}}}:info", "done") == b"20"


async def test_run_when_the_key_is_of_the_wrong_type_then_waits_until_it_is_mended(
    make_broker: Callable[..., Broker], redis_client: Redis
) -> None:
    broker, seen = make_broker(), []
    await redis_client.set(K, "in the way")
    async with consuming(broker, collecting(seen)) as consumer:
        await until(lambda: not consumer.held)
        await redis_client.delete(K)
        await broker.send(Outgoing("a", b"x"))
        await until(lambda: seen == ["a"])


async def test_run_when_our_own_code_fails_then_ends_with_that_error(
    make_broker: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = make_broker()

    async def wrong(*_: object) -> None:
        raise LookupError("our own code is wrong")

    monkeypatch.setattr(broker, "claim", wrong)
    consumer = Consumer(broker, collecting([]), "c1", failed)
    with pytest.raises(LookupError, match="our own code"):
        await consumer.run()


@pytest.mark.parametrize("verb", ["CLAIM", "SETTLE"])
async def test_run_when_redis_refuses_a_script_then_told_once_and_goes_on_when_mended(
    make_broker: Callable[..., Broker], redis_client: Redis, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    broker, seen = make_broker(), []
    monkeypatch.setattr(scripts, verb, refusing())
    await broker.send(Outgoing("a", b"x"))
    with capture_logs() as logs:
        async with consuming(broker, collecting(seen)) as consumer:
            await until(lambda: "hash value is not an integer" in consumer.fault)
            first = await refusals(redis_client)
            await until_async(lambda: more_refusals(redis_client, first + 2))
            monkeypatch.undo()
            await until(lambda: not consumer.fault, 10)
            await until(lambda: seen == ["a"] and not consumer.held, 10)
    told = [line["event"] for line in logs if line["event"].startswith("queue")]
    assert told == ["queue out of order", "queue in order again"]


async def refusals(redis: Redis) -> int:
    return int((await redis.info("errorstats")).get("errorstat_ERR", {"count": 0})["count"])


async def more_refusals(redis: Redis, than: int) -> bool:
    return await refusals(redis) > than


def refusing() -> Script:
    source = "#!lua\nreturn redis.error_reply('ERR hash value is not an integer')"
    return Script("refusing", source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


async def test_bell_when_redis_swallows_the_answer_then_thrown_away_and_anew(
    connections: Connections, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqservice.bell._GRACE_S", 0.1)
    bell = Bell(connections, "bell", 0.3)
    await redis_client.client_pause(2000, all=True)
    from mqservice.errors import Unavailable

    with pytest.raises(Unavailable):
        await bell.wait(None)
    await redis_client.client_unpause()
    await redis_client.rpush("bell", "1")
    assert await bell.wait(None)
    await bell.aclose()


async def test_renewal_when_one_of_two_fails_unforeseen_then_the_other_ends_too(
    make_broker: Callable[..., Broker], connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = (Consumer(make_broker(lease_s=lease), collecting([]), "c1", failed) for lease in (30.0, 1.0))
    monkeypatch.setattr(broken, "renewable", lambda stuck_s: 1 // 0)
    renewal = Renewal([whole, broken], asyncio.get_running_loop(), connections.again, lambda: 0.0)
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(renewal.run(), 5)
    assert asyncio.all_tasks() == {asyncio.current_task()}  # else each new start would add a second renewer


async def test_run_when_quick_handlers_turn_slow_then_what_was_claimed_ahead_is_left_to_others(
    make_broker: Callable[..., Broker], redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, gate, slow, others = make_broker(concurrency=4), asyncio.Event(), [], []
    release, renewed = broker.release, []

    async def release_and_renew(receipts: Sequence[Receipt]) -> list[bool]:
        answers = await release(receipts)
        consumer.renewed(receipts, await broker.renew(receipts, "c1"))  # as it may happen before they are let go
        renewed.extend(receipts)
        return answers

    monkeypatch.setattr(broker, "release", release_and_renew)

    async def execute(claimed: Claimed) -> Outcome:
        if claimed.body == b"slow":
            slow.append(claimed.receipt.id)
            await gate.wait()
        return Done(b"null")

    await broker.send_many([Outgoing(f"quick{n}", b"quick") for n in range(200)])
    await broker.send_many([Outgoing(f"slow{n:03}", b"slow") for n in range(100)])
    with capture_logs() as logs:
        async with consuming(broker, execute) as consumer:
            await until(lambda: len(slow) == 4)
            await until(lambda: consumer.held > 4)
            await until(lambda: consumer.held == 4)
            assert await redis_client.llen(K) == 96
            head = await redis_client.lindex(K, 0)
            assert head == b"\0mq:slow004"  # the order is as it was
            async with consuming(make_broker(), collecting(others), "c2"):
                await until(lambda: len(others) == 96)
            gate.set()
    assert sorted(slow + others) == [f"slow{n:03}" for n in range(100)]
    assert await redis_client.hmget(f"{{{K}}}:m:slow004", "state", "attempts", "crashes") == [b"done", None, None]
    assert renewed
    assert [line for line in logs if line["event"] == "lease lost"] == []
