"""What a stranger may put into our keys: nothing of it stops a queue for good, loses a message, or ends the service."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from mqservice import Service, scripts
from mqservice.broker import Broker, claim_token
from mqservice.config import Config, QueueConfig, QueueOptions, ServiceConfig
from mqservice.connections import Connections
from mqservice.errors import MqError, WrongType
from mqservice.idempotency import Idempotency, Mismatch
from mqservice.message import Attempt, Dead, Done, Outgoing, RetryIn
from mqservice.operations import Operations
from mqservice.views import Views
from tests.probes import lag, rss_bytes
from tests.waiting import until, until_async

K = "mq:jobs"
MARK = b"\0mq:"
PARTS = ("bell", "active", "leases", "scheduled", "dead", "done", "cancelled", "info", "consumers")
ATTEMPT = Attempt("ValueError", "no")


class Queue:
    """Everything that can be done with a queue."""

    def __init__(self, connections: Connections) -> None:
        named = {field: getattr(QueueConfig(), field) for field in QueueConfig.__struct_fields__}
        self.options = QueueOptions(**named, name="jobs", key=K)
        self.broker = Broker(connections, self.options)
        self.views = Views(connections, self.options)
        self.operations = Operations(connections, self.options)

    def looks(self) -> list[Callable[[], Awaitable[object]]]:
        """Every way to look at it."""
        states = ("ready", "scheduled", "active", "done", "dead", "cancelled")
        pages = [lambda state=state: self.views.page(state, 50, None) for state in states]
        return [*pages, self.views.queue, self.views.queue_or_fault, lambda: self.views.message("m1")]

    def acts(self) -> list[Callable[[], Awaitable[object]]]:
        """Every way to change it."""
        states = ("ready", "scheduled", "done", "dead", "cancelled")
        return [
            lambda: self.broker.send(Outgoing("m9", b"1")),
            lambda: self.broker.send(Outgoing("m8", b"1", delay_ms=5, unique="u")),
            lambda: self.broker.push(b"1"),
            lambda: self.broker.claim(claim_token(), "c", 10),
            lambda: self.operations.cancel("m1"),
            lambda: self.operations.replay("m1"),
            self.operations.replay_all,
            self.operations.pause,
            self.operations.resume,
            *(lambda state=state: self.operations.purge(state) for state in states),
        ]


@pytest.fixture
async def queue(connections: Connections) -> AsyncIterator[Queue]:
    queue = Queue(connections)
    yield queue
    await queue.broker.aclose()


async def drained(queue: Queue, consumer: str = "drain") -> set[bytes]:
    """Claim and settle until nothing is left; the bodies."""
    bodies: set[bytes] = set()
    while claim := (await queue.broker.claim(claim_token(), consumer, 100)).messages:
        for claimed in claim:
            assert await queue.broker.settle(claimed.receipt, Done(b"1"))
            bodies.add(claimed.body)
    return bodies


# Keys of another type


@pytest.mark.parametrize("part", ["", *PARTS])
@pytest.mark.parametrize("kind", ["string", "set"])
async def test_key_when_of_another_type_then_refused_and_nothing_is_lost(
    queue: Queue, redis_client: redis.asyncio.Redis, part: str, kind: str
) -> None:
    await queue.broker.send_many([Outgoing(f"m{n}", b"%d" % n) for n in range(5)])
    held = await queue.broker.claim(claim_token(), "c", 2)
    key = f"{{{K}}}:{part}" if part else K
    existed = await redis_client.rename(key, "aside") if await redis_client.exists(key) else False
    await (redis_client.set(key, "x") if kind == "string" else redis_client.sadd(key, "x"))
    for look in queue.looks():
        await refused_or_done(look)
    sent = [f"k{n}" for n in range(3)]
    answers = [await refused_or_done(lambda i=i: queue.broker.send(Outgoing(i, i.encode()))) for i in sent]
    for receipt in [claimed.receipt for claimed in held.messages]:
        await refused_or_done(lambda receipt=receipt: queue.broker.renew([receipt], "c"))
        with_deadline = asyncio.wait_for(refused_or_done(lambda r=receipt: queue.broker.settle(r, Done(b"1"))), 2)
        await with_deadline
    await refused_or_done(lambda: queue.broker.claim(claim_token(), "c", 10))
    await redis_client.delete(key)
    if existed:
        await redis_client.rename("aside", key)
    settled = {claimed.body for claimed in held.messages}
    for claimed in held.messages:
        await refused_or_done(lambda r=claimed.receipt: queue.broker.settle(r, Done(b"1")))
    accepted = {i.encode() for i, answer in zip(sent, answers, strict=True) if not isinstance(answer, MqError)}
    assert await drained(queue, "c") | settled >= {b"%d" % n for n in range(5)} | accepted


async def refused_or_done(act: Callable[[], Awaitable[object]]) -> object:
    """Do it, or return the WrongType that it raises."""
    try:
        return await act()
    except WrongType as error:
        return error


@pytest.mark.parametrize("kind", ["string", "list"])
async def test_record_when_of_another_type_then_a_dead_letter_tells_and_the_others_are_handled(
    queue: Queue, redis_client: redis.asyncio.Redis, kind: str
) -> None:
    await queue.broker.send_many([Outgoing(f"m{n}", b"%d" % n) for n in range(5)])
    key = f"{{{K}}}:m:m2"
    await redis_client.delete(key)
    await (redis_client.set(key, "mine") if kind == "string" else redis_client.rpush(key, "mine"))
    for look in queue.looks():
        await look()
    assert await drained(queue) == {b"0", b"1", b"3", b"4"}
    page = await queue.views.page("dead", 10, None)
    assert [view.reason for view in page.messages] == ["undecodable"]
    assert "m2" in str(page.messages[0].error)
    assert await redis_client.type(key) in (b"string", b"list")  # it is not ours to delete
    for act in (lambda: queue.operations.cancel("m2"), lambda: queue.operations.replay("m2")):
        await refused_or_done(act)
    assert await queue.broker.send(Outgoing("m2", b"1")) != "ready"
    assert await queue.broker.send_many([Outgoing("m2", b"1"), Outgoing("m7", b"7")]) != []
    assert await drained(queue) == {b"7"}


async def test_record_when_deleted_under_a_claimed_id_then_its_settle_is_stale_and_the_queue_goes_on(
    queue: Queue, redis_client: redis.asyncio.Redis
) -> None:
    await queue.broker.send_many([Outgoing(f"m{n}", b"%d" % n) for n in range(3)])
    held = (await queue.broker.claim(claim_token(), "c", 3)).messages
    await redis_client.delete(*(f"{{{K}}}:m:m{n}" for n in range(3)))
    outcomes = (Done(b"1"), RetryIn(0, ATTEMPT), Dead("failed", ATTEMPT))
    for claimed, outcome in zip(held, outcomes, strict=True):
        await queue.broker.settle(claimed.receipt, outcome)
    await queue.broker.send(Outgoing("next", b"next"))
    assert b"next" in await drained(queue)
    for look in queue.looks():
        await look()


async def test_receipt_when_of_an_earlier_life_of_the_id_then_it_changes_nothing(queue: Queue) -> None:
    await queue.broker.send(Outgoing("one", b"first"))
    (first,) = (await queue.broker.claim(claim_token(), "a", 1)).messages
    await queue.broker.release([first.receipt])
    assert await queue.operations.purge("ready") == 1
    await queue.broker.send(Outgoing("one", b"second"))
    (second,) = (await queue.broker.claim(claim_token(), "b", 1)).messages
    assert second.body == b"second"
    assert await queue.broker.settle(first.receipt, Done(b'"wrong"')) is False
    assert await queue.broker.renew([first.receipt], "a") == [0]
    assert await queue.broker.release([first.receipt]) in ([False], [True])
    assert await queue.broker.settle(second.receipt, Done(b'"right"')) is True
    view = await queue.views.message("one")
    assert view is not None
    assert view.result == "right"


# Fields, ids and bodies of any bytes


FIELDS = (
    *("state", "sent", "meta", "body", "attempts", "crashes", "expires", "cancel", "lease", "history"),
    *("progress", "error", "result", "watch", "unique", "due", "finished", "reason", "settled", "purged", "blob"),
)
VALUES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [b"nan", b"inf", b"-inf", b"-1", b"1e300", b"9" * 30, b"0x10", b"[" * 3000, b" ", b"\n", b"\xff\xfe"]
    ),
    st.sampled_from([b"ready", b"scheduled", b"active", b"done", b"dead", b"cancelled"]),
)


async def everything(queue: Queue) -> None:
    """Look at it in every way, then do everything that a consumer and a person do."""
    for look in queue.looks():
        await look()
    claim = await queue.broker.claim(claim_token(), "c", 10)
    for number, claimed in enumerate(claim.messages):
        await queue.broker.renew([claimed.receipt], "c")
        await queue.broker.progress(claimed.receipt, 0.5, "half")
        for look in queue.looks():
            await look()
        outcomes = (Done(b"1"), RetryIn(0, ATTEMPT), Dead("failed", ATTEMPT))
        await queue.broker.settle(claimed.receipt, outcomes[number % 3])
    for act in queue.acts():
        await act()
    for look in queue.looks():
        await look()


async def fuzzed(strategy: st.SearchStrategy[Any], attack: Callable[[Any], Awaitable[None]], examples: int) -> None:
    """Run an attack on this loop for examples that hypothesis finds in a thread."""
    loop = asyncio.get_running_loop()

    @given(strategy)
    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    def run(example: Any) -> None:
        asyncio.run_coroutine_threadsafe(attack(example), loop).result(20)

    await asyncio.to_thread(run)


async def test_record_when_its_fields_are_anything_then_nothing_fails_and_others_are_handled(
    queue: Queue, redis_client: redis.asyncio.Redis
) -> None:
    async def attack(fields: dict[str, bytes]) -> None:
        await redis_client.flushdb()
        await queue.broker.send_many([Outgoing("m0", b"0"), Outgoing("m1", b"1"), Outgoing("m2", b"2")])
        await redis_client.hset(f"{{{K}}}:m:m1", mapping=fields)
        await redis_client.zadd(f"{{{K}}}:scheduled", {"m1": 1})
        await everything(queue)

    await fuzzed(st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=6), attack, 150)


async def test_counters_when_they_are_anything_then_nothing_fails(
    queue: Queue, redis_client: redis.asyncio.Redis
) -> None:
    counters = ("sent", "done", "failed", "died", "cancelled", "replayed", "purged", "forgotten", "tombstones")

    async def attack(fields: dict[str, bytes]) -> None:
        await redis_client.flushdb()
        await redis_client.hset(f"{{{K}}}:info", mapping=fields)
        now_s = (await redis_client.time())[0]
        await redis_client.hset(f"{{{K}}}:rate:{now_s // 10}", mapping=fields)
        await queue.broker.send_many([Outgoing("m0", b"0"), Outgoing("m1", b"1")])
        await everything(queue)

    await fuzzed(st.dictionaries(st.sampled_from(counters), VALUES, min_size=1, max_size=4), attack, 60)


async def test_tombstones_when_they_are_no_number_then_no_claim_fails_half_way(
    queue: Queue, redis_client: redis.asyncio.Redis
) -> None:
    await queue.broker.send_many([Outgoing(f"m{n}", b"%d" % n) for n in range(3)])
    await redis_client.hset(f"{{{K}}}:info", "tombstones", "x")
    assert await queue.operations.cancel("m1") == "cancelled"
    await queue.broker._connections.run(scripts.SAMPLE, K, [])
    assert await drained(queue) == {b"0", b"2"}


async def test_state_when_it_is_no_text_then_cancel_replay_and_send_are_answered(
    queue: Queue, redis_client: redis.asyncio.Redis
) -> None:
    await redis_client.hset(f"{{{K}}}:m:odd", mapping={"state": b"\x80", "sent": "1"})
    assert await queue.operations.cancel("odd") == "\ufffd"
    await queue.operations.replay("odd")
    await queue.broker.send(Outgoing("odd", b"1"))


async def test_entry_when_it_is_any_bytes_then_it_is_handled_or_a_dead_letter(
    queue: Queue, redis_client: redis.asyncio.Redis
) -> None:
    ids = st.binary(max_size=30).map(lambda id_: MARK + id_)
    made = st.binary(max_size=30).map(lambda id_: (MARK + id_, id_))

    async def attack(entry: bytes | tuple[bytes, bytes]) -> None:
        await redis_client.flushdb()
        if isinstance(entry, tuple):  # with a record that looks like one of ours
            entry, id_ = entry
            record = {"state": "ready", "sent": "1", "body": "x"}
            await redis_client.hset(f"{{{K}}}:m:".encode() + id_, mapping=record)
        await redis_client.rpush(K, b"before", entry, b"after")
        for look in queue.looks():
            await look()
        bodies = await drained(queue)
        assert bodies >= {b"before", b"after"}
        dead = await redis_client.zcard(f"{{{K}}}:dead")
        assert len(bodies) + dead >= 3 or entry in (b"before", b"after")
        await queue.views.page("dead", 10, None)
        await queue.operations.purge("dead")

    await fuzzed(st.binary(max_size=40) | ids | made, attack, 150)


@pytest.mark.parametrize("id_", [b"\xff" * 36, b"a b\n" * 9, b"m" * 36], ids=["no text", "spaces", "text"])
async def test_id_when_as_long_as_a_uuid_but_none_then_handled_or_a_dead_letter_once_its_lease_has_ended(
    queue: Queue, redis_client: redis.asyncio.Redis, id_: bytes
) -> None:
    await redis_client.hset(f"{{{K}}}:m:".encode() + id_, mapping={"sent": "1700000000000", "body": "x"})
    await redis_client.rpush(K, b"before", MARK + id_, b"after")
    bodies = set()
    for claimed in (await queue.broker.claim(claim_token(), "c", 10)).messages:
        if await queue.broker.settle(claimed.receipt, Done(b"1")):
            bodies.add(claimed.body)
    assert bodies >= {b"before", b"after"}
    for member in await redis_client.zrange(f"{{{K}}}:active", 0, -1):
        await redis_client.zadd(f"{{{K}}}:active", {member: 1})
    assert await drained(queue) == set()
    dead = (await queue.views.page("dead", 10, None)).messages
    assert (b"x" in bodies) != ([view.reason for view in dead] == ["undecodable"])
    assert await redis_client.hlen(f"{{{K}}}:leases") == await redis_client.zcard(f"{{{K}}}:active") == 0


async def test_lease_when_it_is_anything_then_nothing_fails(queue: Queue, redis_client: redis.asyncio.Redis) -> None:
    async def attack(lease: bytes) -> None:
        await redis_client.flushdb()
        await queue.broker.send_many([Outgoing("m0", b"0"), Outgoing("m1", b"1")])
        await redis_client.hset(f"{{{K}}}:leases", "m1", lease)
        await redis_client.zadd(f"{{{K}}}:active", {"m1": 1, "nobody": 1})
        await everything_but_delete(queue)

    await fuzzed(VALUES, attack, 60)


async def everything_but_delete(queue: Queue) -> None:
    for look in queue.looks():
        await look()
    for act in queue.acts():
        await act()


# In the service


@asynccontextmanager
async def consuming(config: Config) -> AsyncIterator[tuple[Service, list[Any]]]:
    """A service whose handler notes the bodies, and which logs no error at its end."""
    service = Service(msgspec.structs.replace(config, service=ServiceConfig(drain_s=1)))
    handled: list[Any] = []

    @service.handler("jobs")
    async def jobs(body: Any) -> None:
        handled.append(body)

    with capture_logs() as logs:
        async with service:
            yield service, handled
    assert [entry for entry in logs if entry["log_level"] in ("error", "critical")] == []


async def test_entry_when_a_hundred_mebibytes_then_a_dead_letter_and_the_loop_goes_on(
    config: Config, redis_client: redis.asyncio.Redis
) -> None:
    async with consuming(config) as (service, handled):
        await service.send("jobs", "before")
        await until(lambda: handled == ["before"])
        size = 100 << 20
        await redis_client.set("huge", b"")
        await redis_client.setrange("huge", size - 1, b"x")  # made in the server: this loop is the probed one
        push = await redis_client.script_load("redis.call('RPUSH', KEYS[2], redis.call('GET', KEYS[1]), 'after')")
        before = rss_bytes()
        async with lag() as probe:
            await redis_client.evalsha(push, 2, "huge", K)
            await until(lambda: handled == ["before", "after"], 20)
            views = service._running().backend.views("jobs")

            async def dead() -> list[Any]:
                return (await views.page("dead", 10, None)).messages

            await until_async(dead, 20)
            (letter,) = await dead()
            await views.queue()
        assert letter.reason == "undecodable"
        assert letter.body is None
        assert letter.body_bytes == size
        assert str(size) in letter.error.text
        assert rss_bytes() - before < 20 << 20
        print(f"the loop was held {probe.worst_s * 1000:.1f} ms")
        assert probe.worst_s < 0.05


async def test_entries_when_a_hundred_of_a_mebibyte_then_all_are_handled_and_the_loop_goes_on(
    config: Config, redis_client: redis.asyncio.Redis
) -> None:
    async with consuming(config) as (_, handled):
        body = json.dumps("x" * (1 << 20)).encode()
        async with lag() as probe:
            for _ in range(100):
                await redis_client.rpush(K, body)
            await redis_client.rpush(f"{{{K}}}:bell", "1")
            await until(lambda: len(handled) == 100, 30)
        print(f"the loop was held {probe.worst_s * 1000:.1f} ms")
        assert probe.worst_s < 0.05


async def test_service_when_its_keys_are_of_another_type_for_a_while_then_it_goes_on(
    config: Config, redis_client: redis.asyncio.Redis
) -> None:
    service = Service(config)
    handled: list[int] = []

    @service.handler("jobs")
    async def jobs(body: int) -> None:
        handled.append(body)

    async with service:
        for number, part in enumerate(PARTS):
            key = f"{{{K}}}:{part}"
            await redis_client.delete(key)
            await redis_client.set(key, "x")
            with pytest.raises(WrongType):
                await service.send("jobs", -1)
            await asyncio.sleep(0.02)  # let the consumer see it
            await redis_client.delete(key)
            await service.send("jobs", number)
            await until(lambda number=number: number in handled, 15)


async def test_idempotency_key_when_a_stranger_holds_it_then_it_belongs_to_another_request(
    connections: Connections, redis_client: redis.asyncio.Redis
) -> None:
    idempotency = Idempotency(connections)
    for text in (b"", b"mine", b"[" * 50_000, b'{"fingerprint": "f", "status": 200, "body": "no base64!"}', b"\xff"):
        await redis_client.set("mq:idempotency:k", text)
        assert await idempotency.begin("k", "f") == Mismatch()


async def test_names_when_a_stranger_adds_to_them_then_only_names_are_listed(
    config: Config, redis_client: redis.asyncio.Redis
) -> None:
    await redis_client.sadd("{mq}:queues", "jobs", "no name", b"\xff", "", "a" * 200)
    await redis_client.sadd("{mq}:schedules", b"\xff", "gone")
    await redis_client.hset("{mq}:schedules:s:gone", mapping={"spec": b"[" * 9000, "rev": "x"})
    await redis_client.hset("{mq}:schedules:changes", mapping={"born": "x", "version": b"\xff"})
    service = Service(config)
    async with service:
        assert await service._running().backend.queues() == ["jobs"]
        assert await service._running().backend.schedules.list() == []
