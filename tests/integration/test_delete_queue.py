"""Deleting a queue: everything of it goes, nothing of others does, and nobody is held up."""

import asyncio
import re
from collections.abc import AsyncIterator
from importlib.resources import files

import pytest
import redis.asyncio

from mqservice import broker as broker_module
from mqservice import scripts
from mqservice.broker import Broker, claim_token, new_id
from mqservice.config import QueueConfig, QueueOptions
from mqservice.connections import Connections
from mqservice.errors import QueueInUse
from mqservice.message import Attempt, Dead, Done, Outgoing, RetryIn
from mqservice.operations import Operations
from mqservice.views import Views
from tests.probes import lag

ATTEMPT = Attempt("ValueError", "no")


def options(name: str, key: str = "") -> QueueOptions:
    return QueueOptions(
        **{f: getattr(QueueConfig(), f) for f in QueueConfig.__struct_fields__}, name=name, key=key or f"mq:{name}"
    )


@pytest.fixture
async def queue(connections: Connections) -> AsyncIterator[tuple[Broker, Operations]]:
    broker = Broker(connections, options("jobs"))
    yield broker, Operations(connections, broker.queue)
    await broker.aclose()


def shared_source() -> str:
    return files(scripts).joinpath("shared.lua").read_text("utf-8")


async def fill(broker: Broker) -> int:
    """Leave a message in every state but active; return how many."""
    await broker.send_many([Outgoing(f"m{n}", b"1", unique=f"u{n}", ttl_ms=60_000) for n in range(6)])
    token = claim_token()
    claim = await broker.claim(token, "c", 4)
    outcomes = [Done(b"1"), Dead("failed", ATTEMPT), RetryIn(60_000, ATTEMPT), Done(b"2")]
    for claimed, outcome in zip(claim.messages, outcomes, strict=True):
        assert await broker.settle(claimed.receipt, outcome)
    await broker.leave("c")
    await broker.send(Outgoing("later", b"x" * 10_000, delay_ms=60_000, watch="mq:process:nobody"))
    await broker.push(b"raw")
    await broker.ring()
    return 8


async def test_delete_when_nobody_uses_it_then_no_key_is_left_and_others_stay(
    queue: tuple[Broker, Operations], connections: Connections, redis_client: redis.asyncio.Redis
) -> None:
    broker, operations = queue
    neighbour = Broker(connections, options("jobs2"))
    await neighbour.send(Outgoing("n", b"1", unique="u"))
    await redis_client.set("mq:job", "a stranger's")
    kept = set(await redis_client.keys("*")) | {b"{mq}:queues"}
    sent = await fill(broker)
    await operations.cancel("m5")
    assert await operations.delete() == sent
    assert set(await redis_client.keys("*")) == kept
    assert await redis_client.smembers("{mq}:queues") == {b"jobs2"}
    assert await operations.delete() == 0
    await neighbour.aclose()


async def test_delete_when_it_has_been_watched_sampled_and_measured_then_no_key_is_left(
    queue: tuple[Broker, Operations], connections: Connections, redis_client: redis.asyncio.Redis
) -> None:
    broker, operations = queue
    await fill(broker)
    await operations.cancel("m5")
    await operations.pause()
    key, base = broker.queue.key, "{mq:jobs}:"
    await connections.run(scripts.WATCH_QUEUE, key, [60_000])
    await connections.run(scripts.RUNS, key, [3, 1])
    seconds, _ = await redis_client.time()
    minute = seconds // 60
    for ten_s in range((minute - 2) * 6, (minute + 1) * 6):
        await redis_client.hset(f"{base}rate:{ten_s}", "sent", "1")
    await connections.run(scripts.SAMPLE, key, [])
    await redis_client.hset(f"{base}leases", "lost", f"{claim_token()}- 1 {seconds * 1000} c")  # of no active message
    await redis_client.hset(f"{base}m:lost", "sent", "1")
    await redis_client.zadd(f"{base}consumers", {"gone": 1})
    kinds = {name.decode().removeprefix(base).split(":")[0] for name in await redis_client.keys("{mq:jobs}*")}
    written = re.findall(r"\{K\}:(\w+)", shared_source())
    assert kinds | {"active"} == set(written)  # no message is active, or it would be refused
    await operations.delete()
    assert [name async for name in redis_client.scan_iter("*jobs*")] == []
    assert await redis_client.smembers("{mq}:queues") == set()


async def test_delete_when_consumed_then_refused_and_nothing_is_lost(
    queue: tuple[Broker, Operations], redis_client: redis.asyncio.Redis
) -> None:
    broker, operations = queue
    await fill(broker)
    claim = await broker.claim(claim_token(), "c", 1)
    before = await redis_client.dbsize()
    for gone in (False, True):  # active still, when its consumer has left
        if gone:
            await broker.leave("c")
        with pytest.raises(QueueInUse, match=f"{int(not gone)} consumers and 1 active"):
            await operations.delete()
    assert await redis_client.dbsize() == before - 1  # the zset of consumers
    assert await broker.settle(claim.messages[0].receipt, Done(b"1"))
    await operations.delete()
    assert await redis_client.keys("*jobs*") == []


async def test_delete_when_records_are_listed_nowhere_then_they_go_too(
    queue: tuple[Broker, Operations], redis_client: redis.asyncio.Redis
) -> None:
    broker, operations = queue
    await broker.send_many([Outgoing(f"m{n}", b"1", unique=f"u{n}") for n in range(50)])
    await redis_client.delete("mq:jobs")  # a stranger's
    await redis_client.set("{mq:jobs}:m:odd", "no hash")
    await redis_client.set("{mq:jobs}:u:odd", "nobody")
    assert await operations.delete() == 51
    assert await redis_client.keys("*jobs*") == []


async def test_delete_when_the_key_has_signs_of_a_pattern_then_only_that_queue_goes(
    connections: Connections, redis_client: redis.asyncio.Redis
) -> None:
    odd, plain = (Broker(connections, options(name, key)) for name, key in (("odd", "a*[b]?\\"), ("plain", "aXbY")))
    for broker in (odd, plain):
        await broker.send(Outgoing("one", b"1"))
    assert await Operations(connections, odd.queue).delete() == 1
    assert await Views(connections, plain.queue).message("one") is not None
    assert [key for key in await redis_client.keys("*") if b"a*[b]" in key] == []
    for broker in (odd, plain):
        await broker.aclose()


async def test_delete_when_sent_to_meanwhile_then_what_came_stays(
    queue: tuple[Broker, Operations], connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, operations = queue
    await broker.send_many([Outgoing(f"old{n}", b"1") for n in range(10)])
    sweep = operations._sweep

    async def sent_meanwhile(before_ms: int) -> int:
        await asyncio.sleep(0.002)  # the clock of Redis counts in ms
        await broker.send(Outgoing("new", b"1"))
        return await sweep(before_ms)

    monkeypatch.setattr(operations, "_sweep", sent_meanwhile)
    assert await operations.delete() == 10
    claim = await broker.claim(claim_token(), "c", 10)
    assert [claimed.receipt.id for claimed in claim.messages] == ["new"]


async def test_delete_when_sent_to_afterwards_then_it_is_known_again(
    queue: tuple[Broker, Operations], redis_client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, operations = queue
    await broker.send(Outgoing("one", b"1"))
    await operations.delete()
    monkeypatch.setattr(broker_module, "_REGISTER_S", 0.0)
    assert await broker.send(Outgoing("one", b"1")) == "ready"
    assert await redis_client.smembers("{mq}:queues") == {b"jobs"}


async def test_delete_when_a_hundred_thousand_then_no_call_is_slow(
    queue: tuple[Broker, Operations], redis_client: redis.asyncio.Redis
) -> None:
    broker, operations = queue
    for _ in range(20):
        await broker.send_many([Outgoing(new_id(), b"1") for _ in range(5_000)])
    await redis_client.config_resetstat()
    async with lag() as probe:
        assert await operations.delete() == 100_000
    assert await redis_client.keys("*jobs*") == []
    scripts = (await redis_client.info("commandstats"))["cmdstat_evalsha"]
    assert scripts["usec"] / scripts["calls"] < 10_000
    print(f"the loop was held {probe.worst_s * 1000:.1f} ms")
    assert probe.worst_s < 0.05
