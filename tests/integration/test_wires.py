"""One connection on which calls do not wait for each other's answers: order, and what a failure takes along."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from mqservice.embedded import EmbeddedServer
from mqservice.wires import Line, Wires
from tests.chaos.proxy import Proxy
from tests.waiting import until, until_async

APPEND = "return redis.call('RPUSH', KEYS[1], ARGV[1])"


@pytest.fixture
async def line(url: str) -> AsyncIterator[Line]:
    async with aclosing(Line(url)) as line:
        yield line


async def append(line: Line, value: int) -> int:
    length: int = await line.call("EVAL", APPEND, 1, "order", value)
    return length


async def calls_under_way(redis: Redis) -> bool:
    return any(client["cmd"] == "blpop" for client in await redis.client_list())


async def test_call_when_many_are_made_at_once_then_in_order_and_each_gets_its_answer(
    line: Line, redis_client: Redis
) -> None:
    assert await asyncio.gather(*(append(line, n) for n in range(200))) == list(range(1, 201))
    assert await redis_client.lrange("order", 0, -1) == [b"%d" % n for n in range(200)]
    assert len([c for c in await redis_client.client_list() if c["cmd"] == "eval"]) == 1


async def test_call_when_one_is_under_way_then_the_next_does_not_wait_to_be_sent(
    line: Line, redis_client: Redis
) -> None:
    first = asyncio.create_task(line.call("BLPOP", "nothing", 0), name="first")
    await until_async(lambda: calls_under_way(redis_client))
    second = asyncio.create_task(append(line, 1), name="second")

    async def has_come() -> bool:  # a blocked client's next command stays in its buffer
        return any(client["cmd"] == "blpop" and int(client["qbuf"]) > 0 for client in await redis_client.client_list())

    await until_async(has_come)
    await redis_client.rpush("nothing", 1)
    assert await first == [b"nothing", b"1"]
    assert await second == 1


async def test_call_when_redis_refuses_one_then_those_behind_it_are_answered(line: Line) -> None:
    answers = await asyncio.gather(append(line, 1), line.call("NONSENSE"), append(line, 2), return_exceptions=True)
    assert (answers[0], answers[2]) == (1, 2)
    assert isinstance(answers[1], ResponseError)


async def test_call_when_one_is_given_up_then_those_behind_it_fail_and_the_next_works(
    line: Line, redis_client: Redis
) -> None:
    first = asyncio.create_task(line.call("BLPOP", "nothing", 0), name="first")
    await until_async(lambda: calls_under_way(redis_client))
    behind = [asyncio.create_task(append(line, n), name="behind") for n in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    failures = await asyncio.gather(first, *behind, return_exceptions=True)
    assert isinstance(failures[0], asyncio.CancelledError)
    assert all(isinstance(failure, ConnectionError) for failure in failures[1:])
    await redis_client.delete("order")
    assert await append(line, 9) == 1


async def test_call_when_one_behind_is_given_up_then_no_answer_goes_to_another(line: Line, redis_client: Redis) -> None:
    first = asyncio.create_task(line.call("BLPOP", "nothing", 0), name="first")
    await until_async(lambda: calls_under_way(redis_client))
    behind = asyncio.create_task(line.call("ECHO", "behind"), name="behind")
    await asyncio.sleep(0)
    behind.cancel()
    await asyncio.wait([first, behind], timeout=5)
    assert isinstance(first.exception(), (OSError, RedisError))
    assert [await line.call("ECHO", n) for n in range(3)] == [b"0", b"1", b"2"]


async def test_call_when_the_connection_was_cut_while_idle_then_a_new_one_is_made(server: EmbeddedServer) -> None:
    with Proxy(server.socket) as proxy:
        async with aclosing(Line(proxy.url(5))) as line:
            assert await line.call("PING") == b"PONG"
            proxy.cut(reset=False)
            await until(lambda: proxy.connections == 0)
            await asyncio.sleep(0.05)  # the end has to reach our side
            assert await line.call("PING") == b"PONG"


async def test_drop_when_idle_or_in_use_then_closed_at_once_or_after_the_answer(
    line: Line, redis_client: Redis
) -> None:
    async def ours() -> str:
        return str(await line.call("CLIENT", "ID"))

    before = await ours()
    await line.drop(in_use=False)
    after = await ours()
    assert after != before
    first = asyncio.create_task(line.call("BLPOP", "nothing", 0), name="first")
    await until_async(lambda: calls_under_way(redis_client))
    await line.drop(in_use=True)
    await redis_client.rpush("nothing", 1)
    assert await first == [b"nothing", b"1"]
    assert await ours() != after


async def test_call_all_when_one_is_refused_then_that_is_raised_and_the_next_call_gets_its_own_answer(
    url: str, redis_client: Redis
) -> None:
    await redis_client.set("text", "x")
    async with aclosing(Wires(url, 1)) as wires:
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await wires.call_all([("GET", "text"), ("HGET", "text", "a"), ("HGET", "none", "a")])
        before = {client["id"] for client in await redis_client.client_list()}
        assert await wires.call_all([("GET", "text"), ("HGET", "none", "a")]) == [b"x", None]
        assert await wires.call("GET", "text") == b"x"
        assert {client["id"] for client in await redis_client.client_list()} == before, "on the same connection"
