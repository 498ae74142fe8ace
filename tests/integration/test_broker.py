"""Each verb on a real server: state before, action, state after; and every script a second time."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from mqservice.broker import MARK, Broker, claim_token, new_id
from mqservice.config import Config
from mqservice.connections import Connections
from mqservice.errors import OutOfMemory, Unavailable, WrongType
from mqservice.message import Attempt, Dead, Done, Meta, Outgoing, Receipt, RetryIn
from tests.waiting import until_async

K = "mq:jobs"
FAILED = Attempt(at_ms=1, took_ms=2, type="ValueError", text="no")


@pytest.fixture
async def broker(connections: Connections, config: Config) -> AsyncIterator[Broker]:
    broker = Broker(connections, config.queue_options("jobs", lease_s=1.0))
    yield broker
    await broker.aclose()


async def states(redis: Redis) -> dict[str, int]:
    """Count what the structures hold, and check that the sum of states holds."""
    info = {key.decode(): int(value) for key, value in (await redis.hgetall(f"{{{K}}}:info")).items()}
    counts = {
        "ready": await redis.llen(K),
        "active": await redis.zcard(f"{{{K}}}:active"),
        "scheduled": await redis.zcard(f"{{{K}}}:scheduled"),
        "dead": await redis.zcard(f"{{{K}}}:dead"),
        "done": info.get("done", 0),
    }
    return {state: count for state, count in counts.items() if count}


async def record(redis: Redis, message_id: str) -> dict[str, str]:
    fields = await redis.hgetall(f"{{{K}}}:m:{message_id}")
    return {key.decode(): value.decode() for key, value in fields.items()}


async def lease(redis: Redis, message_id: str) -> list[str]:
    """Token with flag, and the number of the delivery."""
    return ((await redis.hget(f"{{{K}}}:leases", message_id)) or b"").decode().split()[:2]


async def claim_one(broker: Broker, consumer: str = "c1") -> Receipt:
    claim = await broker.claim(claim_token(), consumer, 1)
    assert len(claim.messages) == 1
    return claim.messages[0].receipt


async def test_send_when_claimed_and_done_then_each_state_in_turn(broker: Broker, redis_client: Redis) -> None:
    assert await broker.send(Outgoing("a", b"1", Meta(headers={"h": "v"}))) == "ready"
    assert await states(redis_client) == {"ready": 1}
    token = claim_token()
    (message,) = (await broker.claim(token, "c1", 10)).messages
    assert (message.receipt, message.body, message.meta.headers) == (Receipt("a", token), b"1", {"h": "v"})
    assert await states(redis_client) == {"active": 1}
    assert await broker.settle(message.receipt, Done(b"42"))
    assert await states(redis_client) == {"done": 1}
    kept = await record(redis_client, "a")
    assert (kept["state"], kept["result"]) == ("done", "42")
    assert 0 < await redis_client.pttl(f"{{{K}}}:m:a") <= 86_400_000


async def test_send_when_id_exists_then_nothing_happens_and_it_says_so(broker: Broker, redis_client: Redis) -> None:
    assert await broker.send(Outgoing("a", b"1")) == "ready"
    assert await broker.send(Outgoing("a", b"2")) == "=ready"
    assert await states(redis_client) == {"ready": 1}
    assert (await record(redis_client, "a"))["body"] == "1"


async def test_send_when_many_callers_then_few_calls_and_order_is_kept(broker: Broker, redis_client: Redis) -> None:
    ids = [f"m{n:04}" for n in range(500)]
    await asyncio.gather(*(broker.send(Outgoing(id, b"x")) for id in ids))
    calls = (await redis_client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert calls <= 6, f"{calls} calls for 500 sends: group commit does not group"
    claimed = [m.receipt.id for m in (await broker.claim(claim_token(), "c1", 1000)).messages]
    assert claimed == ids


async def test_send_when_redis_is_full_then_refused_and_drains(broker: Broker, redis_client: Redis) -> None:
    await broker.send(Outgoing("a", b"1"))
    await redis_client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(OutOfMemory):
            await broker.send(Outgoing("b", b"2"))
        receipt = await claim_one(broker)
        assert await broker.renew([receipt], "c1") == [1]
        assert await broker.settle(receipt, Done(b"null"))
    finally:
        await redis_client.config_set("maxmemory", "0")
    assert await states(redis_client) == {"done": 1}
    assert not await redis_client.exists(f"{{{K}}}:m:b")


async def test_claim_when_sent_twice_then_same_messages_once(broker: Broker, redis_client: Redis) -> None:
    await broker.send_many([Outgoing(f"m{n}", b"x") for n in range(5)])
    token = claim_token()
    first = await broker.claim(token, "c1", 3)
    again = await broker.claim(token, "c1", 3)
    assert [(m.receipt, m.body) for m in first.messages] == [(m.receipt, m.body) for m in again.messages]
    assert await states(redis_client) == {"ready": 2, "active": 3}
    fresh = await broker.claim(claim_token(), "c1", 3)
    assert [m.receipt.id for m in fresh.messages] == ["m3", "m4"]


async def test_claim_when_repeated_after_somebody_else_took_over_then_only_what_is_held(broker: Broker) -> None:
    await broker.send(Outgoing("a", b"1"))
    token = claim_token()
    await broker.claim(token, "slow", 1)

    async def taken_over() -> bool:
        return bool((await broker.claim(claim_token(), "fast", 1)).messages)

    await until_async(taken_over)
    assert (await broker.claim(token, "slow", 1)).messages == []


async def test_claim_when_raw_body_was_pushed_by_anybody_then_adopted(broker: Broker, redis_client: Redis) -> None:
    await redis_client.rpush(K, "7", b"\xff\x00")
    claim = await broker.claim(claim_token(), "c1", 10)
    assert [m.body for m in claim.messages] == [b"7", b"\xff\x00"]
    ids = [m.receipt.id for m in claim.messages]
    assert len(set(ids)) == 2
    assert all(len(id) == 36 and id[14] == "7" and id[19] in "89ab" for id in ids)
    assert await redis_client.hget(f"{{{K}}}:m:{ids[0]}", "body") == b"7"
    assert await states(redis_client) == {"active": 2}


async def test_claim_when_raw_body_equals_an_id_then_told_apart(broker: Broker, redis_client: Redis) -> None:
    await broker.send(Outgoing("7", b"the message called 7"))
    await redis_client.rpush(K, "7")
    bodies = [m.body for m in (await broker.claim(claim_token(), "c1", 10)).messages]
    assert bodies == [b"the message called 7", b"7"]


async def test_claim_when_body_is_large_then_whole(broker: Broker) -> None:
    small, large = b"s", bytes(range(256)) * 400
    await broker.send_many([Outgoing("a", small), Outgoing("b", large), Outgoing("c", small)])
    assert [m.body for m in (await broker.claim(claim_token(), "c1", 3)).messages] == [small, large, small]


async def test_claim_when_lease_expired_then_next_delivery_and_one_crash(broker: Broker, redis_client: Redis) -> None:
    await broker.send(Outgoing("a", b"1"))
    stale = await claim_one(broker, "dies")
    for crash in (1, 2):
        taken = await _claim_soon(broker)
        assert await lease(redis_client, "a") == [f"{taken.claim}+", str(crash + 1)]
        assert (await record(redis_client, "a"))["crashes"] == str(crash)
    await until_async(lambda: _is_dead(broker, redis_client))
    kept = await record(redis_client, "a")
    assert (kept["state"], kept["reason"], kept["crashes"]) == ("dead", "crashed", "3")
    assert not await broker.settle(stale, Done(b"1"))
    assert await states(redis_client) == {"dead": 1}


async def _claim_soon(broker: Broker) -> Receipt:
    found: list[Receipt] = []

    async def claimed() -> bool:
        found.extend(m.receipt for m in (await broker.claim(claim_token(), "c2", 1)).messages)
        return bool(found)

    await until_async(claimed)
    return found[0]


async def _is_dead(broker: Broker, redis: Redis) -> bool:
    await broker.claim(claim_token(), "c3", 1)
    return "dead" in await states(redis)


async def test_claim_when_scheduled_then_not_before_it_is_due(broker: Broker, redis_client: Redis) -> None:
    assert await broker.send(Outgoing("later", b"1", delay_ms=300)) == "scheduled"
    claim = await broker.claim(claim_token(), "c1", 1)
    assert claim.messages == []
    assert claim.next_due_s is not None
    assert 0.1 < claim.next_due_s <= 0.3
    assert await states(redis_client) == {"scheduled": 1}
    assert (await _claim_soon(broker)).id == "later"
    seconds, micros = await redis_client.time()
    due = int((await record(redis_client, "later"))["due"])
    assert 0 <= seconds * 1000 + micros // 1000 - due < 150


async def test_claim_when_ttl_has_passed_then_dead_expired(broker: Broker, redis_client: Redis) -> None:
    await broker.send(Outgoing("old", b"1", delay_ms=20, ttl_ms=1))
    await until_async(lambda: _is_dead(broker, redis_client))
    assert (await record(redis_client, "old"))["reason"] == "expired"


async def test_claim_when_record_was_deleted_then_dead_with_evidence(broker: Broker, redis_client: Redis) -> None:
    await broker.send(Outgoing("a", b"1"))
    await redis_client.delete(f"{{{K}}}:m:a")
    assert (await broker.claim(claim_token(), "c1", 1)).messages == []
    kept = await record(redis_client, "a")
    assert (kept["reason"], "MissingRecord" in kept["error"]) == ("undecodable", True)


async def test_claim_when_key_holds_something_else_then_wrong_type(broker: Broker, redis_client: Redis) -> None:
    await redis_client.set(K, "not a list")
    with pytest.raises(WrongType, match="holds something else"):
        await broker.claim(claim_token(), "c1", 1)


async def test_claim_when_more_is_left_then_the_bell_rings_on(broker: Broker, redis_client: Redis) -> None:
    await broker.send_many([Outgoing("a", b"1"), Outgoing("b", b"2")])
    assert await redis_client.llen(f"{{{K}}}:bell") == 1
    await redis_client.delete(f"{{{K}}}:bell")
    await broker.claim(claim_token(), "c1", 1)
    assert await redis_client.llen(f"{{{K}}}:bell") == 1
    await redis_client.delete(f"{{{K}}}:bell")
    await broker.claim(claim_token(), "c1", 1)
    assert await redis_client.llen(f"{{{K}}}:bell") == 0


async def test_settle_when_retry_then_scheduled_with_history_and_an_attempt_used(
    broker: Broker, redis_client: Redis
) -> None:
    await broker.send(Outgoing("a", b"1"))
    for failures in range(1, 13):
        receipt = await claim_one(broker)
        assert await broker.settle(receipt, RetryIn(0, FAILED))
        kept = await record(redis_client, "a")
        assert (kept["state"], kept["attempts"]) == ("scheduled", str(failures))
        assert len(kept["history"].splitlines()) == min(failures, 10)
    assert await states(redis_client) == {"scheduled": 1}


async def test_settle_when_dead_then_reason_and_evidence(broker: Broker, redis_client: Redis) -> None:
    await broker.send(Outgoing("a", b"1"))
    assert await broker.settle(await claim_one(broker), Dead("rejected", FAILED))
    kept = await record(redis_client, "a")
    assert (kept["state"], kept["reason"]) == ("dead", "rejected")
    assert '"text":"no"' in kept["error"]
    assert await states(redis_client) == {"dead": 1}


@pytest.mark.parametrize("outcome", [Done(b"1"), RetryIn(60_000, FAILED), Dead("failed", FAILED)])
async def test_settle_when_sent_twice_then_same_answer_and_one_effect(
    broker: Broker, redis_client: Redis, outcome: Done | RetryIn | Dead
) -> None:
    await broker.send(Outgoing("a", b"1"))
    receipt = await claim_one(broker)
    assert await broker.settle(receipt, outcome)
    before = (await states(redis_client), await record(redis_client, "a"))
    assert await broker.settle(receipt, outcome)
    assert (await states(redis_client), await record(redis_client, "a")) == before


async def test_release_when_sent_twice_then_at_the_head_once_with_no_attempt_used(
    broker: Broker, redis_client: Redis
) -> None:
    await broker.send_many([Outgoing(id, b"x") for id in "abc"])
    receipts = [m.receipt for m in (await broker.claim(claim_token(), "c1", 2)).messages]
    assert await broker.release(receipts) == [True, True]
    assert await broker.release(receipts) == [True, True]
    assert await redis_client.lrange(K, 0, -1) == [MARK + b"a", MARK + b"b", MARK + b"c"]
    kept = await record(redis_client, "a")
    assert "attempts" not in kept
    assert "crashes" not in kept
    assert not await broker.settle(receipts[0], Done(b"1"))


async def test_renew_when_held_or_stale_then_told_apart_and_the_deadline_moves(
    broker: Broker, redis_client: Redis
) -> None:
    await broker.send(Outgoing("a", b"1"))
    receipt = await claim_one(broker)
    before = await redis_client.zscore(f"{{{K}}}:active", "a")

    async def renewed_later() -> bool:
        receipts = [receipt, Receipt("a", claim_token()), Receipt("nobody", receipt.claim)]
        assert await broker.renew(receipts, "c1") == [1, 0, 0]
        return (await redis_client.zscore(f"{{{K}}}:active", "a") or 0) > (before or 0)

    await until_async(renewed_later)


async def test_push_when_sent_twice_then_pushed_once(broker: Broker, redis_client: Redis) -> None:
    assert await broker.push(b"7") == 1
    assert await redis_client.lrange(K, 0, -1) == [b"7"]
    from mqservice import scripts

    connections: Connections = broker._connections
    for _ in range(2):
        assert await connections.run(scripts.PUSH, K, ["token", b"8", b"9"]) == 3
    assert await redis_client.lrange(K, 0, -1) == [b"7", b"8", b"9"]


async def test_scripts_when_redis_has_forgotten_them_then_sent_again(broker: Broker, redis_client: Redis) -> None:
    await redis_client.script_flush()
    assert await broker.send(Outgoing(new_id(), b"1")) == "ready"


async def test_send_when_redis_is_read_only_or_silent_then_unavailable_and_nothing_is_kept(
    url: str, config: Config, redis_client: Redis
) -> None:
    impatient = Connections(url, deadline_s=0.3)
    broker = Broker(impatient, config.queue_options("jobs"))
    try:
        await redis_client.replicaof("localhost", "1")
        with pytest.raises(Unavailable, match="read only"):
            await broker.send(Outgoing("a", b"1"))
        await redis_client.replicaof("NO", "ONE")
        assert await states(redis_client) == {}
        await redis_client.client_pause(600, all=False)
        with pytest.raises(Unavailable):
            await broker.send(Outgoing("b", b"1"))
        await redis_client.client_unpause()
        assert await broker.send(Outgoing("a", b"1")) == "ready"
    finally:
        await redis_client.replicaof("NO", "ONE")
        await broker.aclose()
        await impatient.aclose()


async def test_claim_when_paused_then_it_rings_nobody_and_names_no_time_to_come_back(
    broker: Broker, redis_client: Redis
) -> None:
    await broker.send_many([Outgoing("ready", b"1"), Outgoing("due", b"1", delay_ms=1)])
    await redis_client.hset(f"{{{K}}}:info", "paused", "1")
    await redis_client.delete(f"{{{K}}}:bell")
    claim = await broker.claim(claim_token(), "c1", 1)
    assert (claim.messages, claim.next_due_s) == ([], None)
    assert await redis_client.llen(f"{{{K}}}:bell") == 0, "a consumer would claim again at once, for ever"


async def test_send_when_a_queue_is_called_queues_then_it_is_one_like_any_other(
    connections: Connections, config: Config
) -> None:
    broker = Broker(connections, config.queue_options("queues"))
    await broker.register()
    assert await broker.send(Outgoing("a", b"1")) == "ready"
    assert [m.receipt.id for m in (await broker.claim(claim_token(), "c1", 1)).messages] == ["a"]
