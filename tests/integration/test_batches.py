"""What is plain takes a short way through the scripts; here, a batch in which not all are plain."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from mqservice.broker import MARK, Broker, claim_token
from mqservice.config import Config
from mqservice.connections import Connections
from mqservice.message import Attempt, Cancelled, Claimed, Dead, Done, Meta, Outgoing, Receipt, RetryIn

K = "mq:jobs"
FAILED = Attempt(at_ms=1, took_ms=2, type="ValueError", text="no")


@pytest.fixture
async def broker(connections: Connections, config: Config) -> AsyncIterator[Broker]:
    broker = Broker(connections, config.queue_options("jobs"))
    yield broker
    await broker.aclose()


async def claim(broker: Broker, room: int = 1000) -> list[Claimed]:
    return (await broker.claim(claim_token(), "c1", room)).messages


async def state(redis: Redis, message_id: str) -> bytes | None:
    found: bytes | None = await redis.hget(f"{{{K}}}:m:{message_id}", "state")
    return found


async def check_consistent(redis: Redis, active: set[bytes]) -> None:
    """Leases and deadlines name the same messages."""
    assert set(await redis.zrange(f"{{{K}}}:active", 0, -1)) == active
    assert set(await redis.hkeys(f"{{{K}}}:leases")) == active


async def test_send_many_when_an_id_comes_twice_then_the_first_body_stays(broker: Broker, redis_client: Redis) -> None:
    states = await broker.send_many([Outgoing("a", b"1"), Outgoing("a", b"2"), Outgoing("b", b"3")])
    assert states == ["ready", "=ready", "ready"]
    assert [m.body for m in await claim(broker)] == [b"1", b"3"]
    assert await redis_client.hget(f"{{{K}}}:info", "sent") == b"2"


async def test_send_many_when_some_exist_or_have_options_then_each_gets_its_own_state(
    broker: Broker, redis_client: Redis
) -> None:
    assert await broker.send_many([Outgoing("a", b"1"), Outgoing("b", b"2")]) == ["ready", "ready"]
    assert await broker.send_many([Outgoing("c", b"3"), Outgoing("a", b"9")]) == ["ready", "=ready"]
    mixed = [Outgoing("d", b"4"), Outgoing("e", b"5", delay_ms=60_000), Outgoing("f", b"6", Meta(headers={"h": "v"}))]
    assert await broker.send_many(mixed) == ["ready", "scheduled", "ready"]
    given = await claim(broker)
    assert [(m.receipt.id, m.body, m.meta.headers) for m in given] == [
        ("a", b"1", {}),
        ("b", b"2", {}),
        ("c", b"3", {}),
        ("d", b"4", {}),
        ("f", b"6", {"h": "v"}),
    ]
    assert await redis_client.hget(f"{{{K}}}:info", "sent") == b"6"


async def test_send_many_when_there_is_no_room_for_the_batch_then_full_for_each(
    connections: Connections, config: Config, redis_client: Redis
) -> None:
    broker = Broker(connections, config.queue_options("jobs", max_length=2))
    assert await broker.send_many([Outgoing(id, b"x") for id in "abc"]) == ["full"] * 3
    assert await redis_client.dbsize() == 1, "only the list of queues"
    assert await broker.send_many([Outgoing(id, b"x") for id in "ab"]) == ["ready"] * 2


async def test_claim_when_an_id_is_on_the_list_twice_then_given_once(broker: Broker, redis_client: Redis) -> None:
    await broker.send_many([Outgoing(id, b"x") for id in "abc"])
    await redis_client.rpush(K, MARK + b"a", MARK + b"c")
    given = await claim(broker)
    assert [m.receipt.id for m in given] == ["a", "b", "c"]
    await check_consistent(redis_client, {b"a", b"b", b"c"})
    assert await broker.settle_many([(m.receipt, Done(b"1")) for m in given]) == [True] * 3
    await check_consistent(redis_client, set())


async def test_claim_when_one_on_the_list_is_held_then_its_holder_keeps_it(broker: Broker, redis_client: Redis) -> None:
    await broker.send_many([Outgoing(id, b"x") for id in "abc"])
    (held,) = await claim(broker, 1)
    await redis_client.rpush(K, MARK + b"a")
    assert [m.receipt.id for m in await claim(broker)] == ["b", "c"]
    await check_consistent(redis_client, {b"a", b"b", b"c"})
    assert await broker.settle(held.receipt, Done(b"1"))
    assert await state(redis_client, "a") == b"done"


async def test_claim_when_the_ids_are_no_uuids_then_given_all_the_same(broker: Broker) -> None:
    ids = ["order:7", "a.b-c_d", "0190b3c4-0000-7000-8000-000000000000", "x" * 128]
    await broker.send_many([Outgoing(id, b"x") for id in ids])
    assert [m.receipt.id for m in await claim(broker)] == ids


async def test_settle_many_when_outcomes_are_mixed_then_each_answer_is_in_its_place(
    broker: Broker, redis_client: Redis
) -> None:
    await broker.send_many([Outgoing(id, b"x") for id in "abcdefg"])
    receipts = {m.receipt.id: m.receipt for m in await claim(broker)}
    settled = [
        (receipts["a"], RetryIn(60_000, FAILED)),
        (receipts["b"], Done(b"1")),
        (Receipt("c", claim_token()), Done(b"2")),
        (receipts["d"], Dead("rejected", FAILED)),
        (Receipt("e", claim_token()), RetryIn(0, FAILED)),
        (receipts["f"], Done(b"3")),
        (receipts["g"], Cancelled()),
    ]
    assert await broker.settle_many(settled) == [True, True, False, True, False, True, True]
    assert await broker.settle_many(settled) == [True, True, False, True, False, True, True], "the same, asked again"
    states = {id: await state(redis_client, id) for id in "abdfg"}
    assert states == {"a": b"scheduled", "b": b"done", "d": b"dead", "f": b"done", "g": b"cancelled"}
    await check_consistent(redis_client, {b"c", b"e"})
    info = await redis_client.hmget(f"{{{K}}}:info", "done", "failed", "died", "cancelled")
    assert info == [b"2", b"2", b"1", b"1"]


async def test_settle_many_when_an_id_comes_twice_then_each_receipt_is_judged(broker: Broker) -> None:
    await broker.send_many([Outgoing("a", b"x"), Outgoing("b", b"x")])
    first, second = [m.receipt for m in await claim(broker)]
    stale = Receipt("a", claim_token())
    assert await broker.settle_many([(first, Done(b"1")), (second, Done(b"2")), (stale, Done(b"3"))]) == [
        True,
        True,
        False,
    ]


async def test_settle_many_when_a_record_is_somebody_elses_then_the_others_are_settled(
    broker: Broker, redis_client: Redis
) -> None:
    await broker.send_many([Outgoing(id, b"x") for id in "abc"])
    receipts = [m.receipt for m in await claim(broker)]
    await redis_client.set(f"{{{K}}}:m:b", "taken")
    assert await broker.settle_many([(receipt, Done(b"1")) for receipt in receipts]) == [True, False, True]
    await check_consistent(redis_client, set())
    assert [await state(redis_client, id) for id in "ac"] == [b"done", b"done"]
